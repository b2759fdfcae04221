"""pydantic's errors, in terms of the YAML file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from .loader import Document
from .model import Spec
from .problems import Loc, did_you_mean, shown
from .requirement_hints import write_instead

MOST = 1000
"""Problems that are put into words: a file of a megabyte may have 300,000."""
_EXAMPLES: dict[Loc, str] = {
    ("comfyui",): "must be a mapping, such as {repo: https://…, ref: v0.3.64} or {path: …}",
    ("custom_nodes",): "must be an address such as https://github.com/OWNER/NAME, or a mapping",
    (
        "models",
        "files",
    ): "must be a mapping: {target: checkpoints/NAME.safetensors, url: https://…}",
    ("models", "extra_roots"): "must be a mapping: {path: …}",
    ("jobs", "store"): "must be a mapping such as {url: s3://BUCKET/FOLDER, access_key: …}",
    ("jobs",): "must be true, false, or a mapping such as {gateway_port: 8180}",
}
"""For a text where a mapping is needed."""
_MEANING: dict[Loc, str] = {
    ("models", "files", "target"): ": its place below the models folder, such as "
    "checkpoints/x.safetensors",
}
_PRIVATE = {"env", "tokens", "token", "credentials", "access_key", "secret_key"}


def translate(error: ValidationError, document: Document) -> Iterator[tuple[Loc, str]]:
    """Location and message of each problem, at most MOST."""
    for detail in islice(error.errors(include_url=False, include_input=True), MOST):
        loc: Loc = tuple(detail["loc"])
        if loc and loc[-1] == "[key]":
            loc = loc[:-1]
        yield loc, _sentence(dict(detail), loc, document)


def _sentence(detail: dict[str, Any], loc: Loc, document: Document) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    match kind:
        case "value_error":
            return str(context["error"])
        case "missing":
            required = f"is required{_MEANING.get(_kind(loc), '')}"
            return "has no value" if loc in document.lines else required
        case "extra_forbidden" | "invalid_key":
            return f"is not a field here{_suggestion(loc)}"
        case "string_type" | "path_type":
            return _unquoted(detail["input"], loc, document)
        case "int_type" | "int_from_float" | "int_parsing":
            return f"must be a whole number{_without_quotes(detail['input'])}"
        case "bool_type":
            return f"must be true or false{_without_quotes(detail['input'])}"
        case "tuple_type":
            return f"must be a list{_as_list(detail['input'], loc)}"
        case "dict_type" | "model_type" | "model_attributes_type":
            return _mapping(detail["input"], loc)
        case "literal_error":
            return f"must be {context['expected']}".replace("'", "")
        case "greater_than_equal":
            return f"must be at least {context['ge']}"
        case "less_than_equal":
            return f"must be at most {context['le']}"
        case "too_short":
            return "must not be empty"
        case _:
            return shown(str(detail["msg"]), 200)


def _kind(loc: Loc) -> Loc:
    """The location without the indices of lists."""
    return tuple(part for part in loc if isinstance(part, str))


def _as_list(value: Any, loc: Loc) -> str:
    if isinstance(value, str) and re.fullmatch(r"[\w.<>=~!+-]{1,80}", value):
        return f": [{value}]"
    if loc == ("custom_nodes",):
        return ": [https://github.com/OWNER/NAME], or one on each line after -"
    if isinstance(value, dict) and loc in (("python", "packages"), ("python", "overrides")):
        lines = [write_instead(f"{name}=={version}") for name, version in value.items()]
        return f": [{shown(', '.join(lines))}]" if all(lines) else ", such as [numpy<2]"
    return ", such as [one, two]"


def _mapping(value: Any, loc: Loc) -> str:
    if not isinstance(value, str) and loc != ("jobs",):
        return "must be a mapping of key: value"
    if loc[0] == "custom_nodes" and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", value):
        place = value if "/" in value else f"OWNER/{value}"
        return f"must be an address: https://github.com/{place}"
    return _EXAMPLES.get(_kind(loc), "must be a mapping of key: value")


def _without_quotes(value: Any) -> str:
    quoted = isinstance(value, str) and (value.isdecimal() or value in {"true", "false"})
    return ", written without quotes" if quoted else ""


def _unquoted(value: Any, loc: Loc, document: Document) -> str:
    if value is None:
        return 'has no value: write "" for an empty text'
    if loc not in document.scalars:
        return "must be text"
    kind, text = document.scalars[loc]
    if _PRIVATE & set(loc):
        return f"YAML reads this as {kind}; quote it"
    return f'YAML reads {shown(text)} as {kind}; quote it: "{shown(text)}"'


def _suggestion(loc: Loc) -> str:
    """What an unknown field may have been meant to be."""
    name = str(loc[-1])
    fields = _fields(loc[:-1])
    before, colon, after = name.partition(":")
    if colon and before in fields:
        return f"; write a space after the colon: {before}: {shown(after.strip(), 40)}"
    if hint := did_you_mean(name, fields):
        return hint
    for section, info in Spec.model_fields.items():
        model = _model(info.annotation)
        if model is not None and name in model.model_fields:
            return f"; it belongs under {section}"
    return f"; known are {', '.join(fields)}" if len(fields) <= 14 else ""


def _fields(loc: Loc) -> list[str]:
    model: type[BaseModel] = Spec
    for part in loc:
        if isinstance(part, str) and part in model.model_fields:
            model = _model(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model(annotation: Any) -> type[BaseModel] | None:
    """The model in a field's type, such as that of `tuple[Model, ...]`."""
    inner = get_args(annotation)
    # In Python 3.10, tuple[X, ...] is an instance of type.
    if not inner and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model, inner)), None)
