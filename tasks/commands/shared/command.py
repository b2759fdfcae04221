"""Base classes of commands: they load the machine and print a Failure as one line, exit code 1.

An invalid machine.yaml or command line has exit code 3, as in doit itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from doit.cmd_base import Command
from doit.exceptions import InvalidCommand

from ...engine.configuration import load_run
from ...engine.outputs import GuardedCommand
from ...engine.run import Run
from ...engine.step import of_file
from ...host.system.failure import Failure
from ...host.system.run_lock import RunLock, Taken
from ...spec import Instance


@dataclass(frozen=True)
class Call:
    """The arguments of one call of a command."""

    run: Run
    options: dict[str, Any]
    names: list[str]

    def named(self) -> list[Instance]:
        """The instances named on the command line, as comfyui-gpu1, gpu1 or 1.

        Raises InvalidCommand for an unknown name.
        """
        known = {
            name: each
            for each in self.run.instances
            for name in (each.name, f"gpu{each.gpu}", str(each.gpu))
        }
        if unknown := [name for name in self.names if name not in known]:
            names = ", ".join(each.name for each in self.run.instances) or "none"
            raise InvalidCommand(f"no instance {unknown[0]}; known: {names}")
        return list({known[name].gpu: known[name] for name in self.names}.values())


def option(name: str, says: str, default: int | str = False, short: str = "") -> dict[str, Any]:
    """An option `--name`, of its default's type, with its help text."""
    kind = {"type": type(default), "default": default}
    return {"name": name, "long": name, "short": short, "help": says, **kind}


class MachineCommand(GuardedCommand, Command):  # type: ignore[misc]
    """A command about the machine. `perform` returns the exit code.

    It may raise Failure, which has exit code 1, and Taken, which has 2.
    """

    takes_names = False

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        if pos_args and not self.takes_names:
            raise InvalidCommand(f"{self.name} takes no names: {' '.join(pos_args)}")
        run = load_run()
        try:
            return self.perform(Call(run, opt_values, pos_args))
        except Failure as failure:
            print(f"{self.name}: {failure.with_log()}", file=sys.stderr)
            return 1
        except OSError as error:
            print(f"{self.name}: {of_file(run, error)}", file=sys.stderr)
            return 1
        except Taken as taken:
            print(taken, file=sys.stderr)
            return 2

    def perform(self, call: Call) -> int:
        raise NotImplementedError


@contextmanager
def locked(run: Run, command: str) -> Iterator[None]:
    """Hold the run lock. Raises Taken when a run is in progress."""
    lock = RunLock(run.machine.workspace)
    lock.take(command)
    try:
        yield
    finally:
        lock.give_back()


class LockingCommand(MachineCommand):
    """A command that changes what runs. `work` holds the run lock."""

    def perform(self, call: Call) -> int:
        with locked(call.run, self.name):
            return self.work(call)

    def work(self, call: Call) -> int:
        raise NotImplementedError
