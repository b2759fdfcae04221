"""machine.lock: the commits of all repositories, and one resolution of all packages."""

__all__ = [
    "package_set",
    "packages",
    "preinstalled",
    "requirements",
    "resolver",
    "stage",
    "torch_family",
]
