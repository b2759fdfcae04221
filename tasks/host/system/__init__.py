"""The operating system: files, processes, locks, GPUs, ports, systemd, Debian packages."""

__all__ = [
    "debian",
    "failure",
    "files",
    "gpu",
    "locks",
    "log_once",
    "port_holders",
    "private_folder",
    "process",
    "progress",
    "redaction",
    "retries",
    "run_journal",
    "run_lock",
    "stat_cache",
    "systemd",
    "templates",
    "thread_pool",
    "units",
    "usage",
]
