"""The HTTP side: endpoints, the page, metrics, limits."""

__all__ = ["app", "protocol"]
