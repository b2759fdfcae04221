"""Advisories in OSV's format, of services and in files: what they say of code and packages."""

__all__ = ["advisory_sources", "osv_document"]
