"""Links to models on other disks, and extra_model_paths.yaml."""

__all__ = ["folder_types", "stage"]
