"""Jobs: what waits for an instance, and which instance takes what."""

__all__ = (
    "api_words",
    "connection",
    "demand",
    "disk_room",
    "distant_file",
    "file_exchange",
    "job_files",
    "job_settings",
    "job_store",
    "object_files",
    "output_folders",
    "partner_keys",
    "record",
    "record_watch",
    "shared_inputs",
    "stored_workflow",
    "worker_protocol",
    "workflow_need",
)
