"""What PM2 runs: instances, workers, and our own services."""

__all__ = ["app", "databases", "job_programs", "own_service", "stage", "start"]
