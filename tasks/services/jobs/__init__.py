"""Jobs: what waits for an instance, and which instance takes what."""

__all__ = (
    "api_words",
    "connection",
    "demand",
    "job_files",
    "job_settings",
    "job_store",
    "record",
    "record_watch",
    "stored_workflow",
    "waking",
    "worker_protocol",
    "workflow_need",
)
