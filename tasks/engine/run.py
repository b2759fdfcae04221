"""One run of doit: the machine, the run's options, and where it reports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ..host.system.cordons import Cordon
from ..spec import Instance, Machine
from ..spec.layout import Layout
from .journal import Journal
from .messages import Messages
from .progress_board import Board


@dataclass(frozen=True, eq=False)
class Run:
    """Every stage and command gets it. `machine` is what the user wants; the rest is this run's."""

    machine: Machine
    instances: tuple[Instance, ...] = ()
    cordoned: Mapping[int, Cordon] = field(default_factory=dict)
    """GPUs of machine.yaml that are out of service; their instances are not in `instances`."""
    locked: bool = False
    """Fail rather than change machine.lock."""
    force: bool = False
    """Try a refused generation again."""
    updates: frozenset[str] | None = None
    """Names to move to the newest version; empty: all; None: nothing moves."""
    overlay: Path | None = None
    """The folder that a plan, or `doit update`, writes into instead of the workspace."""
    messages: Messages = field(default_factory=Messages)
    board: Board = field(default_factory=Board)

    @cached_property
    def layout(self) -> Layout:
        return Layout(self.machine.workspace, self.overlay)

    @cached_property
    def journal(self) -> Journal:
        return Journal(self.layout)

    @property
    def is_plan(self) -> bool:
        """Whether this run only says what it would do; `doit update` does write the lock."""
        return self.overlay is not None and self.updates is None

    def with_machine(self, machine: Machine) -> Run:
        """A run of another machine that shares everything else."""
        other = replace(self, machine=machine)
        # The same object, since tasks report to it while they run.
        other.__dict__["journal"] = self.journal
        return other

    def without_cordons(self) -> Run:
        """This run with the instances of cordoned GPUs too."""
        if not self.cordoned:
            return self
        every = (*self.instances, *map(self.machine.instance, self.cordoned))
        return replace(self, instances=tuple(sorted(every, key=lambda each: each.gpu)))

    def with_cordons(self, cordoned: Mapping[int, Cordon]) -> Run:
        """This run without the instances of cordoned GPUs; it reports where this one does."""
        left = tuple(each for each in self.instances if each.gpu not in cordoned)
        here = {each.gpu: cordoned[each.gpu] for each in self.instances if each.gpu in cordoned}
        other = replace(self, instances=left, cordoned={**self.cordoned, **here})
        other.__dict__["journal"] = self.journal
        return other

    def updating(self, *names: str) -> bool:
        """Whether to move something with one of these names to the newest version."""
        if self.updates is None:
            return False
        return not self.updates or bool(self.updates.intersection(names))

    def warn(self, text: str) -> None:
        """Queue a warning for the end of the run."""
        self.messages.warn(text)

    def tell(self, text: str) -> None:
        """Queue a line of news for the end of the run."""
        self.messages.tell(text)

    def say(self, text: str) -> None:
        """Print a line now, during a long step."""
        self.messages.show(text)

    def progress(self, task: str, percent: float | None, detail: str) -> None:
        """Record the progress of a task, from any thread; percent None: unknown."""
        self.journal.progress(task, percent, detail)
        self.board.update(task, percent, detail)

    def doing(self, detail: str, percent: float | None = None) -> None:
        """Record what this thread's step does now, and how far it is; percent None: unknown."""
        if name := self.board.current:
            self.progress(name, percent, detail)

    @contextmanager
    def working(self, name: str, detail: str = "") -> Iterator[None]:
        """Show a step of a command that is no run, until the body ends."""
        self.board.start(name, detail)
        try:
            with self.board.step(name):
                yield
        finally:
            self.board.finish(name)
            self.board.close()
