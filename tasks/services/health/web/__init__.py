"""The HTTP side: endpoints, the page, metrics, limits."""

__all__ = ["endpoints", "protocol"]
