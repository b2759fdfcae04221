"""From a workflow as ComfyUI's page saves it to the prompt that the page would send.

The page saves values without names, so an instance's `/object_info` tells which input each is of.
Where a value doesn't fit, this says so and guesses nothing: the file has to be exported then.
Source: widgets of ComfyUI's frontend 1.3x and 1.4x (`control_after_generate`, buttons for uploads).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import workflow_state
from .page_graph import Constant, NotConvertible, PageGraph, Scope

CONTROL = ("fixed", "increment", "decrement", "randomize")
"""The value after a seed that says how the page changes it."""
SEEDS = ("seed", "noise_seed")
VALUES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR"}
"""Types of inputs that have a value on the page."""
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"
"""A choice that has inputs of its own."""
UPLOADS = ("image_upload", "video_upload", "audio_upload", "animated_image_upload", "file_upload")
"""What makes the page add a button, which has a value too."""
Info = Mapping[str, Any]
"""Class → what `/object_info` says of it."""


def convert(workflow: Mapping[str, Any], info: Info) -> dict[str, dict[str, Any]]:
    """The prompt. Raises NotConvertible."""
    try:
        return _converted(PageGraph(workflow), info)
    except NotConvertible:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError):
        raise NotConvertible("something in it isn't as the page saves it") from None


def _converted(graph: PageGraph, info: Info) -> dict[str, dict[str, Any]]:
    prompt: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    for scope, node in graph.nodes():
        name, kind = f"{scope.before}{node.get('id')}", str(node.get("type"))
        if kind not in info:
            left_out[name] = kind
            continue
        try:
            inputs = _values(node, info[kind]) | _links(graph, scope, node)
        except NotConvertible as problem:
            raise NotConvertible(f"node {name} ({kind}): {problem}") from None
        prompt[name] = {"class_type": kind, "inputs": inputs}
    if not prompt:
        raise NotConvertible("it has no node that an instance knows")
    _refuse_lost(prompt, left_out)
    return prompt


def _refuse_lost(prompt: Mapping[str, Any], left_out: Mapping[str, str]) -> None:
    """Raises NotConvertible where a node gets something of one that the instance doesn't know."""
    for node in prompt.values():
        for value in node["inputs"].values():
            if isinstance(value, list) and value[0] in left_out:
                kind = left_out[value[0]]
                raise NotConvertible(f"only the page knows what node {value[0]} ({kind}) does")


def _links(graph: PageGraph, scope: Scope, node: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in node.get("inputs") or ():
        if each.get("link") is None:
            continue
        source = graph.source(scope, each["link"])
        if isinstance(source, Constant):
            found[each["name"]] = _wrapped(source.value)
        elif source is not None:
            found[each["name"]] = [source.node, source.slot]
    return found


def _values(node: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    saved = node.get("widgets_values")
    if isinstance(saved, dict):
        known = dict(_inputs(info))
        return {
            name: _wrapped(value)
            for name, value in saved.items()
            if name not in known or _has_value(name, known[name], node)
            if not isinstance(value, dict)
        }
    values = [*saved] if isinstance(saved, list) else []
    found: dict[str, Any] = {}
    optional = [pair for pair in _inputs(info, "optional") if _has_value(*pair, node)]
    has_upload = False
    for name, spec in _inputs(info, "required"):
        if _has_value(name, spec, node):
            _take(name, spec, values, found)
            has_upload = has_upload or any(_options(spec).get(each) for each in UPLOADS)
    if has_upload:
        del values[: max(0, len(values) - len(optional))]
    for name, spec in optional:
        _take(name, spec, values, found)
    return found


def _take(name: str, spec: Any, values: list[Any], found: dict[str, Any]) -> None:
    """Move the value of an input from what is saved; an input that came later has its default."""
    given = values.pop(0) if values else None
    value = _default(spec) if given is None else given
    if value is None:
        return
    if not _fits(spec, value):
        raise NotConvertible(f"{value!r:.60} isn't a value of {name}")
    found[name] = _wrapped(value)
    if spec[0] == DYNAMIC:
        for inner, inner_spec in _inputs_of_choice(spec, value):
            if _has_value(inner, inner_spec, {}):
                _take(f"{name}.{inner}", inner_spec, values, found)
    controlled = _options(spec).get("control_after_generate") or name in SEEDS
    if controlled and values and values[0] in CONTROL:
        values.pop(0)
        if _is_choice(spec) and values and isinstance(values[0], str):
            # The text that filters the choices.
            values.pop(0)


def _inputs_of_choice(spec: Any, value: Any) -> Iterator[tuple[str, Any]]:
    for option in _options(spec).get("options") or ():
        if option.get("key") == value:
            inputs = option.get("inputs") or {}
            for kind in ("required", "optional"):
                yield from (inputs.get(kind) or {}).items()


def _inputs(info: Mapping[str, Any], *kinds: str) -> Iterator[tuple[str, Any]]:
    """Name and description of each input, in their order."""
    for kind in kinds or ("required", "optional"):
        described = info["input"].get(kind) or {}
        order = (info.get("input_order") or {}).get(kind) or [*described]
        yield from ((str(name), described[name]) for name in order if name in described)


def _has_value(name: str, spec: Any, node: Mapping[str, Any]) -> bool:
    """Whether the page shows a value for an input, even where a link replaces it."""
    if _options(spec).get("forceInput"):
        return False
    if _is_choice(spec) or spec[0] in VALUES or spec[0] == DYNAMIC:
        return True
    if _options(spec).get("socketless") or _options(spec).get("widgetType"):
        return True
    shown = [each.get("widget") for each in node.get("inputs") or ()]
    return any(isinstance(each, dict) and each.get("name") == name for each in shown)


def _fits(spec: Any, value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match spec[0]:
        case "INT":
            return is_number and value == int(value)
        case "FLOAT":
            return is_number
        case "BOOLEAN":
            return isinstance(value, bool)
        case "STRING" | "COLOR":
            return isinstance(value, str)
    return not (_is_choice(spec) and isinstance(value, dict))


def _default(spec: Any) -> Any:
    default = _options(spec).get("default")
    choices = workflow_state.options(spec)
    return choices[0] if default is None and choices else default


def _is_choice(spec: Any) -> bool:
    return isinstance(spec[0], list) or spec[0] == "COMBO"


def _options(spec: Any) -> Mapping[str, Any]:
    return spec[1] if len(spec) > 1 and isinstance(spec[1], dict) else {}


def _wrapped(value: Any) -> Any:
    """A list that isn't a link is sent like this. Source: graphToPrompt of ComfyUI's frontend."""
    return {"__value__": value} if isinstance(value, list) else value
