"""What is observed and answered, as values."""

__all__ = ["answers", "facts", "settings"]
