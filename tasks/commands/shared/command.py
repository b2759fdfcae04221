"""Base classes of commands: they load the machine and print a Failure as one line, exit code 1.

An invalid machine.yaml or command line has exit code 3, as in doit itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from doit.cmd_base import Command
from doit.cmdparse import CmdParseError
from doit.exceptions import InvalidCommand

from ...engine.configuration import load_run
from ...engine.exit_codes import ExitCode
from ...engine.outputs import GuardedCommand
from ...engine.run import Run
from ...engine.step import of_file
from ...host.system.failure import Failure
from ...host.system.run_lock import RunLock, Taken
from ...spec import Instance
from ...spec.problems import did_you_mean


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
            # Where only the number is wrong, any other is as good.
            words = [name for name in known if not name.isdigit()]
            only_number = unknown[0].rstrip("0123456789") in ("", "gpu", "comfyui-gpu")
            hint = "" if only_number else did_you_mean(unknown[0], words).rstrip("?")
            raise InvalidCommand(f"no instance {unknown[0]}{hint}; known: {names}")
        return list({known[name].gpu: known[name] for name in self.names}.values())


def instance_words(run: Run) -> Iterator[tuple[str, str]]:
    """The names of instances, for completion."""
    for each in run.instances:
        yield each.name, f"the instance of GPU {each.gpu}"


def option(name: str, says: str, default: int | str = False, short: str = "") -> dict[str, Any]:
    """An option `--name`, of its default's type, with its help text."""
    kind = _number(name) if type(default) is int else type(default)
    value = {"type": kind, "default": default, "metavar": "N" if kind is not str else "TEXT"}
    return {"name": name, "long": name, "short": short, "help": says, **value}


def _number(name: str) -> Callable[[str], int]:
    def read(text: str) -> int:
        try:
            return int(text)
        except ValueError:
            raise CmdParseError(f"--{name} takes a number, not {text!r}") from None

    return read


def json_option() -> dict[str, Any]:
    """The option `--json`, for commands with `has_json`."""
    return option("json", "print one JSON document for programs: see docs/reference/json.md")


class MachineCommand(GuardedCommand, Command):  # type: ignore[misc]
    """A command about the machine. `perform` returns the exit code.

    It may raise Failure, which has exit code 1, and Taken, which has 2.
    """

    takes_names = False

    @classmethod
    def words(cls, run: Run) -> Iterable[tuple[str, str]]:
        """The names that it takes, and what each is, for completion."""
        return ()

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        if pos_args and not self.takes_names:
            raise InvalidCommand(f"{self.name} takes no names: {' '.join(pos_args)}")
        run = load_run()
        try:
            return self.perform(Call(run, opt_values, pos_args))
        except Failure as failure:
            return self.failed(failure, ExitCode.FAILED, f"{self.name}: ")
        except OSError as error:
            return self.failed(of_file(run, error), ExitCode.FAILED, f"{self.name}: ")
        except Taken as taken:
            return self.failed(Failure(str(taken)), ExitCode.REFUSED)

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
