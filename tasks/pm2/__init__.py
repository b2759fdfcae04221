"""What PM2 is to run: instances, workers, and our own services."""

__all__ = ["app", "databases", "own_service", "stage"]
