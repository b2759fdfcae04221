"""ComfyUI: its HTTP API, its code, what it loads, its health, our own jobs."""

__all__ = [
    "api",
    "condition",
    "database_files",
    "exchange",
    "health_client",
    "installations",
    "job_apps",
    "judge",
    "load_report",
    "load_result",
    "machine_condition",
    "machine_state",
    "node_classes",
    "own_jobs",
    "quick_test",
    "remedies",
    "source_facts",
    "started_with",
    "symptoms",
    "warmup",
]
