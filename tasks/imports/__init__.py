"""From what people have to machine.yaml: what workflows use, and where it comes from."""

__all__ = (
    "assembly",
    "disk_models",
    "entries",
    "formats",
    "kept_workflows",
    "lookup",
    "model_paths",
    "model_roots",
    "wanted",
)
