"""Python environments: made and filled by uv, and what is in them."""

__all__ = [
    "altered_files",
    "build_log",
    "constraints",
    "environments",
    "import_trial",
    "pth_hook",
    "records",
    "uv",
    "uv_errors",
    "uv_progress",
]
