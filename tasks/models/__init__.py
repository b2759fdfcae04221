"""Models: pinned, downloaded into the store, linked into the models folder."""

__all__ = ["model_pins", "placement", "stage"]
