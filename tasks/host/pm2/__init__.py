"""PM2 and the apps that it runs: processes, logs, start and end."""

__all__ = [
    "app_processes",
    "app_state",
    "apps",
    "daemon_socket",
    "log_evidence",
    "log_rotation",
    "log_stream",
    "pm2",
    "shutdown",
    "stopped_apps",
]
