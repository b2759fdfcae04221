"""Downloads of models: fetched in parts, resumed, verified, kept in a store."""

__all__ = [
    "civitai", "download_request", "json_answer", "model_files", "remote_file", "store", "web",
]  # fmt: skip
