"""The Python environment of a generation: installed, restored, verified."""

__all__ = ["replaced_packages", "restoration", "script_records", "stage", "target", "verification"]
