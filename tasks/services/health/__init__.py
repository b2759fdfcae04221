"""The health server: `looks` observe, `verdicts` judge, `web` answers."""

__all__ = []
