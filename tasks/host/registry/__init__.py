"""The registry of custom nodes: its API, which version it offers, and its archives."""

__all__ = ["node_archives", "registry_api", "version_choice"]
