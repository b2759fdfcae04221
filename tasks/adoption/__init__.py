"""An existing installation of ComfyUI, read for machine.yaml; nothing in it is changed."""

__all__ = [
    "findings",
    "model_inventory",
    "origins",
    "python_packages",
]
