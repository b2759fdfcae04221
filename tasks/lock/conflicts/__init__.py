"""Conflicts of requirements: found whole, explained, with an override that settles them."""

__all__ = ["conflict", "explanation", "inquiry", "minimal_sets", "search"]
