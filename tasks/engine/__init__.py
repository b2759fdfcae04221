"""The parts that stages share: steps, reporter, journal, messages, lock file."""

__all__ = [
    "command_line",
    "configuration",
    "exit_codes",
    "lock_file",
    "messages",
    "outputs",
    "progress_board",
    "reporter",
    "run",
    "run_command",
    "space",
    "step",
    "write_guard",
]
