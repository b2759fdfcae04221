"""Checks of a prompt before it is queued, with ComfyUI's error types and shapes."""

from __future__ import annotations

import inspect
import sys
import traceback
from typing import Any

import nodes
from simulation.flags import SINCE_2026

Prompt = dict[str, dict[str, Any]]
Error = dict[str, Any]

LONG_LIST = 20
"""Options beyond which an error doesn't repeat them."""


def is_link(value: Any) -> bool:
    """Whether an input's value is another node's output: [node id, slot]."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
    )


def error(kind: str, message: str, details: str = "", **extra_info: Any) -> Error:
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}


def of_exception(kind: str, message: str, problem: Exception, **extra_info: Any) -> Error:
    klass = type(problem)
    name = klass.__qualname__
    if klass.__module__ != "builtins":
        name = f"{klass.__module__}.{name}"
    trace = traceback.format_tb(sys.exc_info()[2])
    return error(kind, message, str(problem), exception_type=name, traceback=trace, **extra_info)


def accepts(wanted: Any, received: Any) -> bool:
    """Whether an input of one type takes an output of another; ``*`` and ``A,B`` as in ComfyUI."""
    if wanted == received or "*" in (wanted, received):
        return True
    if not (isinstance(wanted, str) and isinstance(received, str)):
        return False
    return set(received.split(",")) <= set(wanted.split(","))


_CONVERSIONS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


class Validator:
    """Validates the nodes of one prompt, each once; converts their values in place."""

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt
        self.results: dict[str, tuple[bool, list[Error]]] = {}
        self._path: list[str] = []

    def validate(self, node_id: str) -> tuple[bool, list[Error]]:
        """Whether the node and all before it are right, and what is wrong with it itself."""
        if node_id in self.results:
            return self.results[node_id]
        if SINCE_2026 and node_id in self._path:
            return self._refuse_cycle(node_id)
        inputs: dict[str, Any] = self.prompt[node_id]["inputs"]
        node = nodes.NODE_CLASS_MAPPINGS[self.prompt[node_id]["class_type"]]
        declared = node.INPUT_TYPES()
        function = getattr(node, "VALIDATE_INPUTS", None)
        own = inspect.getfullargspec(function) if function is not None else None
        checked_by_node = set(own.args) if own else set()
        checks_all = bool(own and own.varkw)

        errors: list[Error] = []
        valid = True
        for category in ("required", "optional"):
            for name, config in declared.get(category, {}).items():
                if name not in inputs:
                    if category == "required":
                        errors.append(
                            error(
                                "required_input_missing",
                                "Required input is missing",
                                name,
                                input_name=name,
                            )
                        )
                    continue
                value = inputs[name]
                if isinstance(value, list):
                    self._path.append(node_id)
                    try:
                        ok, found = self._check_link(
                            name, config, value, "input_types" in checked_by_node
                        )
                    finally:
                        self._path.pop()
                    valid = valid and ok
                else:
                    skip = checks_all or name in checked_by_node
                    found = self._check_value(name, config, inputs, skip)
                errors += found
        if function is not None and own is not None:
            errors += self._ask_node(function, own, inputs, declared)
        if SINCE_2026:  # a cycle through this node may have been found below it
            before, found = self.results.get(node_id, (True, []))
            valid, errors = before and valid, found + errors
        self.results[node_id] = (valid and not errors, errors)
        return self.results[node_id]

    def _refuse_cycle(self, node_id: str) -> tuple[bool, list[Error]]:
        """All nodes of the cycle have one error."""
        path = [*self._path[self._path.index(node_id) :], node_id]
        members = list(dict.fromkeys(path))
        details = " -> ".join(f"{name} ({self.prompt[name]['class_type']})" for name in path)
        for name in members:
            known = {"node_id": name, "cycle_nodes": members}
            wrong = error("dependency_cycle", "Dependency cycle detected", details, **known)
            self.results[name] = (False, [wrong])
        return self.results[node_id]

    def _check_link(
        self, name: str, config: Any, value: list[Any], any_type: bool
    ) -> tuple[bool, list[Error]]:
        if len(value) != 2:
            return True, [
                error(
                    "bad_linked_input",
                    "Bad linked input, must be a length-2 list of [node_id, slot_index]",
                    name,
                    input_name=name,
                    input_config=_config(config),
                    received_value=value,
                )
            ]
        origin, slot = value
        klass = nodes.NODE_CLASS_MAPPINGS[self.prompt[origin]["class_type"]]
        received = klass.RETURN_TYPES[slot]
        if not any_type and not accepts(config[0], received):
            return True, [
                error(
                    "return_type_mismatch",
                    "Return type mismatch between linked nodes",
                    f"{name}, received_type({received}) mismatch input_type({config[0]})",
                    input_name=name,
                    input_config=_config(config),
                    received_type=received,
                    linked_node=value,
                )
            ]
        try:
            return self.validate(origin)[0], []
        except Exception as problem:
            wrong = of_exception(
                "exception_during_inner_validation",
                "Exception when validating inner node",
                problem,
                input_name=name,
                input_config=_config(config),
                exception_message=str(problem),
                linked_node=value,
            )
            self.results[origin] = (False, [wrong])
            return False, []

    def _check_value(
        self, name: str, config: Any, inputs: dict[str, Any], skip: bool
    ) -> list[Error]:
        kind, options = _config(config)
        value = inputs[name]
        if isinstance(value, dict) and "__value__" in value:
            value = inputs[name] = value["__value__"]
        known: dict[str, Any] = {
            "input_name": name, "input_config": (kind, options), "received_value": value,
        }  # fmt: skip
        if isinstance(kind, str) and kind in _CONVERSIONS:
            try:
                value = inputs[name] = _CONVERSIONS[kind](value)
            except Exception as problem:
                return [
                    error(
                        "invalid_input_type",
                        f"Failed to convert an input value to a {kind} value",
                        f"{name}, {value}, {problem}",
                        **known,
                        exception_message=str(problem),
                    )
                ]
            known["received_value"] = value
        if skip:
            return []
        if "min" in options and value < options["min"]:
            message = f"Value {value} smaller than min of {options['min']}"
            return [error("value_smaller_than_min", message, name, **known)]
        if "max" in options and value > options["max"]:
            message = f"Value {value} bigger than max of {options['max']}"
            return [error("value_bigger_than_max", message, name, **known)]
        if isinstance(kind, list) and value not in kind:
            shown = str(kind)
            if len(kind) > LONG_LIST:
                shown = f"(list of length {len(kind)})"
                known["input_config"] = None
            quoted = repr(value) if SINCE_2026 else f"'{value}'"
            details = f"{name}: {quoted} not in {shown}"
            return [error("value_not_in_list", "Value not in list", details, **known)]
        return []

    def _ask_node(
        self, function: Any, own: inspect.FullArgSpec, inputs: dict[str, Any], declared: Any
    ) -> list[Error]:
        """Call the node's VALIDATE_INPUTS, with None for what comes over a link."""
        names = {
            name for category in ("required", "optional") for name in declared.get(category, {})
        }
        given = {
            name: None if is_link(value) else value
            for name, value in inputs.items()
            if name in names and (name in own.args or own.varkw)
        }
        if "input_types" in own.args:
            given["input_types"] = {
                name: nodes.NODE_CLASS_MAPPINGS[self.prompt[value[0]]["class_type"]].RETURN_TYPES[
                    value[1]
                ]
                for name, value in inputs.items()
                if is_link(value)
            }
        if not given:
            return []
        answer = function(**given)
        if answer is True:
            return []
        suffix = "" if answer is False else f" - {answer}"
        return [
            error(
                "custom_validation_failed",
                "Custom validation failed for node",
                f"{name}{suffix}",
                input_name=name,
            )
            for name in given
        ]


def _config(config: Any) -> tuple[Any, dict[str, Any]]:
    return config[0], config[1] if len(config) > 1 else {}
