"""Observation, in background threads: no request waits for one."""

__all__ = ["sampler"]
