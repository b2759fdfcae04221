"""What the stages share: steps, the reporter, the journal, messages, the lock file."""

__all__ = [
    "configuration",
    "journal",
    "lock_file",
    "messages",
    "planning",
    "progress_board",
    "space",
    "step",
]
