"""Git repositories: resolve a ref, fetch into the cache, check out a commit."""

__all__ = ["git", "git_cache", "remotes", "sources"]
