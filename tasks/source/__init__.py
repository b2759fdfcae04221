"""ComfyUI's source at its commit, and what machine.yaml asks of it."""

__all__ = ["arguments", "stage"]
