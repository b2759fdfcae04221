"""PM2 and its apps: processes, logs, start and stop."""

__all__ = [
    "app_processes",
    "app_secrets",
    "app_state",
    "apps",
    "daemon_socket",
    "endings",
    "liveness",
    "log_evidence",
    "log_rotation",
    "log_stream",
    "pm2",
    "process_starts",
    "shutdown",
]
