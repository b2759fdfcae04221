"""From what people have to machine.yaml: what workflows use, and where it comes from."""

__all__ = ()
