"""Conflicts of requirements: minimal ones, explained, with overrides that solve them."""

__all__ = ["conflict", "explanation", "inquiry", "minimal_sets", "search"]
