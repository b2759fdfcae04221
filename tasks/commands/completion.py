"""doit completion: print what lets a shell complete comfy-machine's command line.

The scripts are thin: at each TAB they ask `comfy-machine completion words`, with the words before
the cursor in a variable.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from doit.cmd_base import Command, DoitCmdBase
from doit.cmdparse import CmdOption
from doit.doit_cmd import set_var
from doit.exceptions import InvalidCommand, InvalidDodoFile

from ..engine import command_line
from ..engine.configuration import current_run
from ..engine.outputs import GuardedCommand
from ..engine.run import Run
from ..host.system import templates
from .help import HIDDEN, OF_DOIT, TASKS

SHELLS = ("bash", "fish", "zsh")
WORDS = "COMFY_MACHINE_WORDS"
"""The variable with the words after the program's name, a line for each, and a line that ends them;
the last word is the one to complete."""
FILES = ":files"
"""The answer that stands for the names of files."""
TAKE_TASKS = ("clean", "help", "info", "list", "plan", "run")
"""The commands that take names of tasks."""
Candidates = Iterable[tuple[str, str]]
"""Words that fit, and what they mean."""


class Completion(GuardedCommand, DoitCmdBase):  # type: ignore[misc]
    doc_purpose = "print what lets a shell complete commands, tasks and instances"
    doc_usage = "bash|fish|zsh"
    doc_description = (
        "At the end of ~/.bashrc:\n    source <(comfy-machine completion bash)\n"
        "At the end of ~/.zshrc:\n    source <(comfy-machine completion zsh)\n"
        "In ~/.config/fish/config.fish:\n    comfy-machine completion fish | source"
    )

    def __init__(self, cmds: Any = None, **kwargs: Any) -> None:
        super().__init__(cmds=cmds, **kwargs)
        self._commands = cmds

    def execute(self, params: Any, args: list[str]) -> int:
        if args == ["words"]:
            self._answer(params, os.environ.get(WORDS, "").split("\n")[:-1] or [""])
        elif len(args) == 1 and args[0] in SHELLS:
            print((templates.FOLDER / f"completion.{args[0]}").read_text(), end="")
        else:
            raise InvalidCommand(f"name a shell: {', '.join(SHELLS)}")
        return 0

    def _answer(self, params: Any, words: Sequence[str]) -> None:
        *before, current = words
        if before[-1:] in (["-m"], ["--machine"]) or current.startswith(("--machine=", "machine=")):
            print(FILES)
            return
        typed, variables = command_line.split(before)
        given = [word.partition("=") for word in typed if "=" in word]
        variables |= {name: value for name, _, value in given if name in command_line.NAMES}
        for name, value in variables.items():
            set_var(name, value)
        named = [word for word in typed if not word.startswith("-") and "=" not in word]
        for word, says in dict(self._candidates(params, named, current)).items():
            if word.startswith(current):
                print(f"{word}\t{says}")

    def _candidates(self, params: Any, named: Sequence[str], current: str) -> Candidates:
        verb = named[0] if named else ""
        command = self._commands.get_plugin(verb) if verb in self._commands else None
        if current.startswith("-"):
            yield from _options(command)
            return
        if verb == self.name:
            yield from ((shell, "") for shell in SHELLS)
        elif command is None or verb in TAKE_TASKS:
            yield from self._tasks(params, ":" in current)
        elif hasattr(command, "words"):
            yield from _quietly(command.words)
        # Last, since they say it best where a task has the same name.
        if verb in ("", "help"):
            yield from self._verbs()

    def _verbs(self) -> Candidates:
        yield from TASKS.items()
        for name in sorted(self._commands):
            if name not in HIDDEN:
                yield name, self._commands.get_plugin(name).doc_purpose

    def _tasks(self, params: Any, sub_tasks: bool) -> Candidates:
        """Stages; with `sub_tasks` their steps."""
        try:
            DoitCmdBase.execute(self, params, [])
        except (InvalidDodoFile, InvalidCommand):
            return
        for task in self.task_list:
            if bool(task.subtask_of) == sub_tasks:
                yield task.name, task.doc or ""

    def _execute(self) -> None:
        """Called once the tasks are loaded."""


def _quietly(words: Callable[[Run], Candidates]) -> Candidates:
    """What a command may be given; nothing where machine.yaml is wrong."""
    try:
        run = current_run()
    except InvalidDodoFile:
        return
    yield from words(run)


def _options(command: type[Command] | None) -> Iterator[tuple[str, str]]:
    for each in command.cmd_options if command else ():
        option = CmdOption(each)
        if option.long and option.name not in OF_DOIT:
            takes = "" if option.type is bool else "="
            yield (
                f"--{option.long}{takes}",
                option.help.split("\n")[0] % {"default": option.default},
            )
    for every in command_line.OPTIONS:
        yield f"--{every.name}{'=' if every.value else ''}", every.says
    yield "--help", "what this command does"
