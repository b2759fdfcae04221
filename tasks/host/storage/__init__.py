"""Disk space: what lies on disk, how much it takes, what can be removed."""

__all__ = ["access", "digest_folders", "disk", "disk_space", "full_disks", "garbage", "trees"]
