"""What the stages share: steps, the reporter, the journal, messages, the lock file."""

__all__ = [
    "configuration",
    "lock_file",
    "messages",
    "reporter",
    "run",
    "run_command",
    "space",
    "step",
    "write_guard",
]
