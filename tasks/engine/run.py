"""One run of doit: the machine, how the run is to behave, and where it reports."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ..spec import Instance, Machine
from ..spec.layout import Layout
from .journal import Journal
from .messages import Messages
from .progress_board import Board


@dataclass(frozen=True, eq=False)
class Run:
    """Given to every stage and command. `machine` is what the user wants, the rest is this run's.

    `with_machine` shares everything but the machine.
    """

    machine: Machine
    instances: tuple[Instance, ...] = ()
    locked: bool = False
    """Fail rather than change machine.lock."""
    force: bool = False
    """Try a refused generation again."""
    updates: frozenset[str] | None = None
    """Names to move to the newest version, empty for all of them; None: nothing moves."""
    overlay: Path | None = None
    """The folder in which a plan writes down what a run would make; None: this is no plan."""
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
        """Whether it says what would be done; `doit update` does write the lock."""
        return self.overlay is not None and self.updates is None

    def with_machine(self, machine: Machine) -> Run:
        other = replace(self, machine=machine)
        # The same object, since tasks report to it while they run.
        other.__dict__["journal"] = self.journal
        return other

    def updating(self, *names: str) -> bool:
        """Whether something with one of these names is to move to the newest version."""
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
        """Print a line now, while something takes long."""
        self.messages.show(text)

    def progress(self, task: str, percent: float | None, detail: str) -> None:
        """Note how far a task is, from any thread; None: unknown."""
        self.journal.progress(task, percent, detail)
