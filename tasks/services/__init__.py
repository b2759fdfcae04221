"""Programs that PM2, systemd or Docker start. Nothing here imports doit."""
