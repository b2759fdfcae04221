"""Instances: started, replaced in turns, and held at the gate until they are healthy."""

__all__ = ["gate", "roll", "stage"]
