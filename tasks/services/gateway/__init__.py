"""The gateway: one address in front of all instances, whose jobs are records in NATS."""

__all__ = ()
