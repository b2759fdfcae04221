"""Asks an instance now and then for the choices of what loads models in workflows."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any
from urllib.parse import quote

from ....host.comfyui import workflow_state
from ....host.comfyui.workflow_state import WantedWorkflow, WorkflowState

EVERY = 30.0
"""Seconds between two rounds of requests."""
SOON = 0.5
"""Seconds after a round that lacked a model, doubled each time: it may be there by now."""
MOST = 100
"""Classes that are asked for."""


class WorkflowCheck:
    """What is known of one process."""

    def __init__(self) -> None:
        self._asked_of: Sequence[WantedWorkflow] = ()
        self._asked_at, self._pause = float("-inf"), SOON
        self._choices: dict[str, dict[str, list[str]]] = {}

    def states(
        self, workflows: Sequence[WantedWorkflow], classes: Collection[str] | None
    ) -> tuple[WorkflowState, ...]:
        return tuple(workflow_state.look(workflows, classes, self._choices))

    def ask(
        self,
        workflows: Sequence[WantedWorkflow],
        classes: Collection[str] | None,
        ask: Callable[[str], Any],
    ) -> None:
        """Ask, if it is time; `ask` gives the answer to a path, None: there was none."""
        wanted = workflow_state.classes_to_ask(workflows)
        kinds = [each for each in wanted if each in (classes or ())]
        if workflows != self._asked_of:
            self._asked_of, self._asked_at, self._pause = workflows, float("-inf"), SOON
        now = time.monotonic()
        if not kinds or now - self._asked_at < self._pause:
            return
        self._asked_at = now
        for kind in kinds[:MOST]:
            answer = ask(f"/object_info/{quote(kind, safe='')}")
            if isinstance(answer, dict) and kind in answer:
                self._choices[kind] = workflow_state.choices_of(answer[kind])
        lacks = any(each.models for each in self.states(workflows, classes))
        self._pause = min(self._pause * 2, EVERY) if lacks else EVERY
