"""From what people have to machine.yaml: what workflows use, and where it comes from."""

__all__ = (
    "core_classes",
    "gathered",
    "model_catalogue",
    "model_paths",
    "node_catalogue",
    "node_uses",
)
