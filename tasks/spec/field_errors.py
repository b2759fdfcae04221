"""pydantic's errors, in terms of the YAML file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from .loader import Document
from .model import Spec
from .problems import Loc, did_you_mean, shown

MOST = 1000
"""Problems that are put into words: a file of a megabyte may have 300,000."""
_PRIVATE = {"env", "tokens", "token"}


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
            return "has no value" if loc in document.lines else "is required"
        case "extra_forbidden" | "invalid_key":
            return f"is not a field here{_suggestion(loc)}"
        case "string_type" | "path_type":
            return _unquoted(detail["input"], loc, document)
        case "int_type" | "int_from_float" | "int_parsing":
            return f"must be a whole number{_without_quotes(detail['input'])}"
        case "bool_type":
            return f"must be true or false{_without_quotes(detail['input'])}"
        case "tuple_type":
            return "must be a list, such as [one, two]"
        case "dict_type" | "model_type" | "model_attributes_type":
            return "must be a mapping of key: value"
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
    if hint := did_you_mean(name, fields):
        return hint
    for section, info in Spec.model_fields.items():
        model = _model(info.annotation)
        if model is not None and name in model.model_fields:
            return f"; it belongs under {section}"
    return f"; known are {', '.join(fields)}" if len(fields) <= 10 else ""


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
