"""A generation: ComfyUI with its custom nodes and environment, assembled and kept."""

__all__ = ["inspection", "last_good", "scripts", "stage"]
