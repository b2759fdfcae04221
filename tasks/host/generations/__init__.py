"""Generations: their parts, changes in them, and which ones are kept."""

__all__ = [
    "contents",
    "drift",
    "found_damage",
    "image_volumes",
    "installed",
    "kept_generations",
    "left_out_nodes",
    "manifest",
    "reported_changes",
]
