"""Python environments: creation and installation by uv, and their contents."""

__all__ = [
    "altered_files",
    "build_log",
    "bytecode",
    "constraints",
    "environments",
    "import_trial",
    "pth_hook",
    "records",
    "uv",
    "uv_errors",
    "uv_progress",
]
