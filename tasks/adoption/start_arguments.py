"""ComfyUI's arguments as fields of machine.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import TypeAdapter, ValidationError

from ..spec.fields import OUR_ARGS, REFUSED_ARGS, Arg, Listen

FOLDERS = {
    "--base-directory", "--models-directory", "--user-directory", "--input-directory",
}  # fmt: skip
"""Those that say where something is that is taken over."""
PATHS = "--extra-model-paths-config"
_NUMBER = re.compile(r"-\d+$|-\d*\.\d+$")
"""argparse takes these as values."""
_ARG: TypeAdapter[str] = TypeAdapter(Arg)
_LISTEN: TypeAdapter[str] = TypeAdapter(Listen)


@dataclass
class Arguments:
    """What the arguments say, by field."""

    args: list[str] = field(default_factory=list)
    port: int | None = None
    listen: str = ""
    cpu: bool = False
    gpus: list[int] = field(default_factory=list)
    folders: dict[str, str] = field(default_factory=dict)
    """Flag of FOLDERS → folder, as it is written there."""
    model_paths: list[str] = field(default_factory=list)
    """Files in the format of extra_model_paths.yaml."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Argument → why it isn't taken over."""


def read(words: Sequence[str]) -> Arguments:
    """What these arguments of main.py say."""
    found = Arguments()
    for flag, values in _groups(words):
        _take(found, flag, values)
    return found


def _groups(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each flag with its values."""
    flag, values = "", list[str]()
    for word in words:
        if word.startswith("-") and not _NUMBER.match(word):
            if flag:
                yield flag, values
            flag, equals, value = word.partition("=")
            values = [value] if equals else []
        elif flag:
            values.append(word)
    if flag:
        yield flag, values


def _take(found: Arguments, flag: str, values: list[str]) -> None:
    first = values[0] if values else ""
    if flag == "--port" and first.isascii() and first.isdigit() and 0 < int(first) < 65536:
        found.port = int(first)
    elif flag == "--listen" and (address := _address(first or "0.0.0.0")):
        found.listen = address
    elif flag == "--cpu":
        found.cpu = True
    elif flag == "--cuda-device" and re.fullmatch(r"\d{1,2}(,\d{1,2})*", first):
        found.gpus = [int(number) for number in first.split(",")]
    elif flag in FOLDERS and first:
        found.folders[flag] = first
    elif flag == PATHS:
        found.model_paths += values
    elif flag in OUR_ARGS:
        found.left_out[" ".join([flag, *values])] = f"the machine sets it: {OUR_ARGS[flag]}"
    elif flag in REFUSED_ARGS:
        found.left_out[flag] = REFUSED_ARGS[flag]
    elif why := next((why for word in (flag, *values) if (why := _refused(word))), ""):
        found.left_out[" ".join([flag, *values])] = why
    else:
        found.args += [flag, *values]


def _address(text: str) -> str:
    try:
        return _LISTEN.validate_python(text)
    except ValidationError:
        return ""


def _refused(word: str) -> str:
    """Why machine.yaml can't have this argument; empty: it can."""
    try:
        _ARG.validate_python(word)
    except ValidationError as error:
        return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
    return ""
