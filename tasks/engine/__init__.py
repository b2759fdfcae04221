"""What the stages share: steps, the reporter, the journal, messages, the lock file."""

__all__ = ["command", "configuration", "lock_file", "messages", "reporter", "run", "space", "step"]
