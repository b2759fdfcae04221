"""doit help: our commands by purpose; what one of them does; a task."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from doit import cmd_help
from doit.cmd_base import Command
from doit.cmdparse import CmdOption

from ..engine import command_line
from ..engine.outputs import GuardedCommand
from ..host.system.program_files import NAME, PROGRAM

GROUPS: Mapping[str, Sequence[str]] = {
    "set up": ("init", "import", "adopt", "plan", "up", "build", "lock", "update", "service"),
    "run": ("restart", "generations", "rollback", "cordon", "uncordon", "down"),
    "send jobs": ("submit", "jobs", "cancel", "retry"),
    "look": ("status", "logs", "probe", "audit", "list", "info"),
    "try and repair": ("smoke", "verify", "repair", "clean", "uninstall"),
    "images, editors, shells": ("layers", "schema", "completion", "help"),
}
TASKS = {
    "up": "make the machine what machine.yaml says (the default)",
    "build": "make all that an image holds; start nothing, need no GPU",
    "lock": "complete machine.lock; download no model",
}
"""Tasks that are as much a command as any; what they do is known without a machine.yaml."""
HIDDEN = ("run", "forget", "ignore", "reset-dep", "dumpdb", "strace", "tabcompletion")
"""doit's: they have no effect where the disk is the truth, or are for other programs."""
OF_DOIT = frozenset(
    "always continue verbosity reporter num_process par_type pdb single auto_delayed_regex "
    "failure_verbosity private template sort list_deps cleandep cleanall cleanforget".split()
)
"""Options that are for authors of tasks."""
SAYS = {
    "subtasks": "every step of each stage",
    "quiet": "names alone",
    "status": "which steps would run (R) and which are up to date (U)",
    "hide_status": "only which steps it waits for",
    "dryrun": "list what would be removed, and remove nothing",
    "outfile": "print to a file",
}
"""doit's options in our words."""
WIDEST = 100
"""Columns; longer lines are hard to read."""


class Help(GuardedCommand, cmd_help.Help):  # type: ignore[misc]
    doc_purpose = "this list; or what a command or a task does"
    doc_usage = "[COMMAND|TASK]"

    def execute(self, params: Any, args: list[str]) -> int:
        if not args:
            print("\n".join(overview(self.cmds)))
        for name in args:
            if name in self.cmds:
                print("\n".join(usage(name, self.cmds[name])))
            elif name in TASKS:
                print("\n".join(_of_task(name, TASKS[name])))
            else:
                cmd_help.DoitCmdBase.execute(self, params, [name])
        return 0

    def _execute(self, pos_args: list[str]) -> bool:
        by_name = {task.name: task for task in self.task_list}
        if pos_args[0] not in by_name:
            raise command_line.unknown(pos_args[0], [*TASKS, *by_name], self.cmds)
        task = by_name[pos_args[0]]
        print("\n".join(_of_task(task.name, str(task.doc))))
        return True


def overview(commands: Mapping[str, type[Command]]) -> Iterator[str]:
    """All commands by purpose, a line or two for each."""
    yield from _wrapped(
        f"{NAME}: machine.yaml says what a ComfyUI machine is; this makes it so.",
        "",
        f"usage: {PROGRAM} [COMMAND|TASK] [NAME ...] [OPTION ...]",
    )
    grouped = {name for names in GROUPS.values() for name in names}
    more = tuple(name for name in commands if name not in grouped and name not in HIDDEN)
    for purpose, names in {**GROUPS, "more": more}.items():
        if names:
            yield f"\n{purpose}:"
        for name in names:
            says = TASKS[name] if name in TASKS else commands[name].doc_purpose
            yield from _row(name, says, 14)
    yield from _options_of_every_command()
    yield ""
    yield from _wrapped(
        f"{PROGRAM} help COMMAND says more. Exit codes: 0 success, 1 and 2 failure, 3 an error in "
        "machine.yaml or the command line, 128+n ended by a signal."
    )


def usage(name: str, command: type[Command]) -> Iterator[str]:
    """What a command does, and its options."""
    yield f"usage: {PROGRAM} {name} {command.doc_usage}".rstrip()
    yield ""
    yield from _wrapped(_sentence(str(command.doc_purpose)))
    if command.doc_description:
        yield ""
        yield from _wrapped(*str(command.doc_description).split("\n"))
    options = [CmdOption(each) for each in command.cmd_options if each["name"] not in OF_DOIT]
    if options := [each for each in options if each.short or each.long]:
        yield "\noptions:"
    for each in options:
        says = " ".join(str(each.help % {"default": each.default}).split())
        yield from _row(each.help_param(), SAYS.get(each.name, says), 28)
    yield from _options_of_every_command()


def _of_task(name: str, purpose: str) -> Iterator[str]:
    yield f"usage: {PROGRAM} {name}"
    yield ""
    yield from _wrapped(_sentence(purpose))
    yield from _options_of_every_command()


def _sentence(purpose: str) -> str:
    return f"{purpose[:1].upper()}{purpose[1:]}."


def _options_of_every_command() -> Iterator[str]:
    yield "\noptions of every command:"
    for option in command_line.OPTIONS:
        yield from _row(_of_every_command(option), option.says, 28)


def _of_every_command(option: command_line.Option) -> str:
    if PROGRAM != NAME:
        return f"{option.name}={option.value or 1}"
    if option.value:
        return f"-{option.short} {option.value}, --{option.name}={option.value}"
    return f"--{option.name}"


def _wrapped(*paragraphs: str) -> Iterator[str]:
    for text in paragraphs:
        yield from textwrap.wrap(text, _width()) or [""]


def _row(name: str, says: str, column: int) -> Iterator[str]:
    """A name and what it means, whose further lines are indented to `column`."""
    first = f"  {name}".ljust(column)
    if not first.endswith(" "):
        yield first
        first = " " * column
    yield from textwrap.wrap(
        says, _width(), initial_indent=first, subsequent_indent=" " * column,
        break_on_hyphens=False,
    )  # fmt: skip


def _width() -> int:
    return min(max(shutil.get_terminal_size().columns, 40), WIDEST)
