"""The health server: `sampling` observes, `conditions` composes the answers, `web` serves them."""

__all__ = []
