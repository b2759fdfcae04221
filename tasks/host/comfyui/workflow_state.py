"""Whether an instance can run the workflows of machine.yaml: by the node classes that it lists, and
by the choices that it gives for models. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...spec.workflow_needs import NeededModel, slashed

Choices = Mapping[str, Mapping[str, Collection[str]]]
"""Class → input that is chosen from a list → what can be chosen."""


@dataclass(frozen=True)
class WantedWorkflow:
    """What a workflow needs, as a run wrote it down."""

    name: str
    classes: Mapping[str, str]
    """Class → the first node of it."""
    models: tuple[NeededModel, ...] = ()
    optional: bool = False


@dataclass(frozen=True)
class WorkflowState:
    """What of a workflow an instance lacks."""

    name: str
    optional: bool = False
    known: bool = True
    """False: the instance hasn't told enough."""
    classes: Mapping[str, str] = field(default_factory=dict)
    """Class that is missing → the first node of it."""
    models: tuple[NeededModel, ...] = ()
    """Those that are missing."""

    @property
    def reason(self) -> str:
        """The first of what is missing; empty: nothing."""
        found = [f"node {node} is of class {kind}" for kind, node in self.classes.items()]
        found = [f"{each}, which it lacks" for each in found]
        for each in self.models:
            names = f"node {each.node} ({each.kind}) names the model {each.name}"
            found.append(f"{names}, which it doesn't list")
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        return f"{found[0]}{more}" if found else ""

    @property
    def ok(self) -> bool | None:
        """None: not known."""
        return False if self.classes or self.models else (True if self.known else None)


def look(
    workflows: Iterable[WantedWorkflow], classes: Collection[str] | None, choices: Choices
) -> list[WorkflowState]:
    """`classes`: those that the instance lists; None: not known yet."""
    return [_state(each, classes, choices) for each in workflows]


def _state(
    workflow: WantedWorkflow, classes: Collection[str] | None, choices: Choices
) -> WorkflowState:
    if classes is None:
        return WorkflowState(workflow.name, workflow.optional, known=False)
    missing = {kind: node for kind, node in workflow.classes.items() if kind not in classes}
    asked = [each for each in workflow.models if each.kind in classes]
    return WorkflowState(
        workflow.name,
        workflow.optional,
        known=all(each.kind in choices for each in asked),
        classes=missing,
        models=tuple(each for each in asked if lacks(choices.get(each.kind), each)),
    )


def lacks(given: Mapping[str, Collection[str]] | None, model: NeededModel) -> bool:
    """Whether the choices of a class are without a model. One that isn't chosen from a list is a
    text like any other."""
    if not given or (model.input and model.input not in given):
        return False
    lists = [given[model.input]] if model.input else [*given.values()]
    return not any(slashed(name) == model.name for names in lists for name in names)


def classes_to_ask(workflows: Iterable[WantedWorkflow]) -> list[str]:
    """The classes whose choices tell which models are there."""
    return sorted({model.kind for each in workflows for model in each.models})


def choices_of(info: Any) -> dict[str, list[str]]:
    """Input → choices, of a class as `/object_info` describes it. Left out are choices that it
    doesn't tell: the page asks elsewhere for them."""
    inputs = info.get("input") if isinstance(info, dict) else None
    return {
        str(name): [each for each in found if isinstance(each, str)]
        for kind in ("required", "optional")
        for name, spec in _mapping(_mapping(inputs).get(kind)).items()
        if (found := options(spec)) is not None
    }


def options(spec: Any) -> Sequence[Any] | None:
    """What an input can be; None: it isn't chosen from a list, or the list isn't told."""
    if not isinstance(spec, list | tuple) or not spec:
        return None
    if isinstance(spec[0], list | tuple):
        return spec[0]
    found = _mapping(spec[1]).get("options") if spec[0] == "COMBO" and len(spec) > 1 else None
    return found if isinstance(found, list | tuple) else None


def wrong(states: Iterable[WorkflowState]) -> Iterator[WorkflowState]:
    """Those that can't run, the required ones first."""
    yield from sorted((each for each in states if each.reason), key=lambda each: each.optional)


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}
