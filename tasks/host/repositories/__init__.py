"""Git repositories: resolved, fetched into a cache, checked out at one commit."""

__all__ = ["git", "git_cache", "sources"]
