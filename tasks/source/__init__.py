"""ComfyUI's source at its commit, and checks of machine.yaml's arguments and targets."""

__all__ = ["arguments", "stage"]
