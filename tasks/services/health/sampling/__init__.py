"""Observation, in background threads: no request waits for one."""

__all__ = ["gateway_link", "job_pictures", "sampler"]
