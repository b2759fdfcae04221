"""Generations: their parts, changes in them, and which ones are kept."""

__all__ = [
    "drift",
    "found_damage",
    "image_volumes",
    "installed",
    "kept_generations",
    "left_out_nodes",
    "manifest",
    "reported_changes",
]
