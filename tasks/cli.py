"""The program comfy-machine: doit with this package's tasks and commands, in any folder.

It is for folders that have a machine.yaml and no dodo.py. In a clone of this project, and in an
image, `doit` does the same.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Any

from doit.cmd_base import NamespaceTaskLoader
from doit.doit_cmd import DoitConfig, DoitMain, set_var
from doit.exceptions import InvalidCommand
from doit.plugin import PluginDict, PluginEntry

from . import __version__
from .engine import command_line
from .host.system import program_files

WRONG = 3
"""doit's exit code for a wrong command line."""


class Tasks(NamespaceTaskLoader):  # type: ignore[misc]
    """The tasks of the package's dodo.py. The current folder stays."""

    def setup(self, opt_values: Any) -> None:
        from . import dodo

        self.namespace = vars(dodo)


class Program(DoitMain):  # type: ignore[misc]
    """doit, with OPTIONS for its variables and without the commands that make no sense here."""

    BIN_NAME = program_files.NAME

    def __init__(self) -> None:
        declared = DoitConfig().load_config_toml(str(program_files.PYPROJECT), "tool.doit")
        super().__init__(Tasks(), config_filenames=(), extra_config=declared)
        self._variables: dict[str, str] = {}

    def get_cmds(self) -> PluginDict:
        commands = self.config["COMMAND"].items()
        return PluginDict({name: PluginEntry("COMMAND", name, at) for name, at in commands})

    def run(self, all_args: Sequence[str]) -> int:
        if problem := program_files.why_unusable():
            print(f"ERROR: {problem}", file=sys.stderr)
            return WRONG
        try:
            words, self._variables = command_line.split([word for word in all_args if word])
        except InvalidCommand as error:
            print(f"ERROR: {error}", file=sys.stderr)
            return WRONG
        own = words[: words.index("--")] if "--" in words else words
        if own[:1] == ["--version"]:
            print(f"{program_files.NAME} {__version__}")
            return 0
        if {"-h", "--help"} & {*own}:
            words = ["help", *[word for word in own if not word.startswith("-")][:1]]
        return int(super().run(words) or 0)

    def process_args(self, cmd_args: Sequence[str]) -> list[str]:
        words = super().process_args(cmd_args)
        for name, value in self._variables.items():
            set_var(name, value)
        return list(words)


def main() -> int:
    """Run the command line of this process; the exit code."""
    try:
        return Program().run(sys.argv[1:])
    except KeyboardInterrupt:
        # Later, a run has handlers of its own.
        return 128 + signal.SIGINT
