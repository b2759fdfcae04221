"""Generations: what each is made of, what changed in it, which ones are kept."""

__all__ = [
    "drift",
    "image_volumes",
    "installed",
    "kept_generations",
    "left_out_nodes",
    "manifest",
    "reported_changes",
]
