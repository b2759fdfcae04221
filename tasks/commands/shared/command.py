"""What the commands have in common: the machine, and failures as one line with exit code 1.

What can't be understood, machine.yaml or the command, has exit code 3, as in doit itself.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from doit.cmd_base import Command
from doit.exceptions import InvalidCommand

from ...engine.configuration import load_run
from ...engine.run import Run
from ...host.system.failure import Failure
from ...host.system.run_lock import RunLock, Taken
from ...spec import Instance


@dataclass(frozen=True)
class Call:
    """What a command is to do, with which machine."""

    run: Run
    options: dict[str, Any]
    names: list[str]

    def named(self) -> list[Instance]:
        """The instances that were named. Raises InvalidCommand for one that there isn't."""
        known = {instance.name: instance for instance in self.run.instances}
        if unknown := [name for name in self.names if name not in known]:
            there = ", ".join(known) or "none"
            raise InvalidCommand(f"there is no instance {unknown[0]}; there are: {there}")
        return [known[name] for name in dict.fromkeys(self.names)]


def flag(name: str, says: str) -> dict[str, Any]:
    """An option `--name` that is on or off."""
    return {"name": name, "long": name, "type": bool, "default": False, "help": says}


class MachineCommand(Command):  # type: ignore[misc]
    """A command about the machine; `perform` returns its exit code and may raise Failure."""

    takes_names = False

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        if pos_args and not self.takes_names:
            raise InvalidCommand(f"{self.name} takes no names: {' '.join(pos_args)}")
        run = load_run()
        try:
            return self.perform(Call(run, opt_values, pos_args))
        except Failure as failure:
            log = f"\n  log: {failure.log}" if failure.log else ""
            print(f"{self.name}: {failure}{log}", file=sys.stderr)
            return 1

    def perform(self, call: Call) -> int:
        raise NotImplementedError


class LockingCommand(MachineCommand):
    """A command that changes what runs: `work` has the run lock, or is refused at once."""

    def perform(self, call: Call) -> int:
        lock = RunLock(call.run.machine.workspace)
        try:
            lock.take(self.name)
        except Taken as taken:
            print(taken, file=sys.stderr)
            return 2
        try:
            return self.work(call)
        finally:
            lock.release()

    def work(self, call: Call) -> int:
        raise NotImplementedError
