"""TLS: ComfyUI serves https when its arguments name a key and a certificate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .problems import Loc

KEY, CERTIFICATE = "--tls-keyfile", "--tls-certfile"


def named(args: Sequence[str]) -> dict[str, tuple[int, str]]:
    """The given ones of the two flags → the index of its argument, and the file."""
    flags = {}
    for number, arg in enumerate(args):
        name, equals, file = arg.partition("=")
        for flag in (KEY, CERTIFICATE):
            # argparse accepts any unambiguous prefix of a flag.
            if len(name) > len("--tls-") and flag.startswith(name):
                following = args[number + 1 : number + 2]
                flags[flag] = (number, file if equals else "".join(following))
    return flags


def scheme(args: Sequence[str]) -> str:
    """The URL scheme of an instance with these arguments."""
    return "https" if {KEY, CERTIFICATE} <= set(named(args)) else "http"


def check(instances: Mapping[Any, Any]) -> Iterator[tuple[Loc, str]]:
    """Problems in machine.yaml: an instance needs both a key and a certificate, or neither."""
    overrides = instances.get("overrides")
    kinds = overrides.items() if isinstance(overrides, dict) else []
    common = _listed(instances, ("instances",))
    for own in [[], *(_listed(entry, ("instances", "overrides", gpu)) for gpu, entry in kinds)]:
        args = [*common, *own]
        for number, why in _wrong([arg for _, arg in args]):
            yield args[number][0], why


def _listed(entry: Any, where: Loc) -> list[tuple[Loc, str]]:
    """The arguments of an entry, with their locations; invalid ones become empty."""
    args = entry.get("args") if isinstance(entry, Mapping) else None
    listed = args if isinstance(args, list) else []
    return [((*where, "args", n), arg if isinstance(arg, str) else "")
            for n, arg in enumerate(listed)]  # fmt: skip


def _wrong(args: Sequence[str]) -> Iterator[tuple[int, str]]:
    flags = named(args)
    for flag, (number, file) in flags.items():
        other = CERTIFICATE if flag == KEY else KEY
        if other not in flags:
            yield number, f"{flag} means nothing without {other}: give both"
        if not file.startswith("/"):
            yield number, f"{flag} needs the whole path of a file, from /"
