"""What a line that isn't a requirement was meant to be."""

from __future__ import annotations

import re
from typing import Any

from .problems import shown

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:\[[\w, -]*\])?"
_VERSION = r"v?\d[\w.+!*-]*"
LONGEST = 200
"""Characters of a line that is looked at."""
#: Each spelling of other tools, or slip, and what it is in a requirement.
_REWRITES: tuple[tuple[str, str], ...] = (
    (r"^(?:python3? -m )?(?:uv )?pip3? install +", ""),
    (r"\s+#.*$", ""),
    (r"^latest +", ""),
    (r"[=<>~!^:@ ]*\b(?:latest|newest|any|\*)$", ""),
    (r"\s+and\s+|\s*&+\s*", ","),
    (r"=+>", ">="),
    (r"=+<", "<="),
    (rf"^({_NAME})\s*(?:=|:|@)\s*(?={_VERSION})", r"\1=="),
    (rf"^({_NAME})\s+(?={_VERSION})", r"\1=="),
    (r"~\s*(\d+)(?![\w.])", r"~=\1.0"),
    (rf"~\s*(?={_VERSION})", "~="),
    (rf"!\s*(?={_VERSION})", "!="),
    (r"(?<=\.)[xX]$", "*"),
    (rf"(?<=[\w.*])\s*(?=[<>]=?\s*{_VERSION})(?<!^)", ","),
)


def write_instead(text: str) -> str:
    """The requirement, or several as a list, that `text` was meant to be; empty: not known."""
    rewritten = text.strip()
    if len(rewritten) > LONGEST:
        return ""
    for pattern, replacement in _REWRITES:
        rewritten = re.sub(pattern, replacement, rewritten)
    rewritten = _caret(re.sub(rf"(^|[\s,])({_NAME}),(?=[<>])", r"\1\2", rewritten))
    if _is_valid(rewritten):
        return rewritten
    parts = [part for part in re.split(r"[\s,]+(?=[A-Za-z])", rewritten) if part]
    if len(parts) > 1 and all(map(_is_valid, parts)):
        return f"[{', '.join(parts)}]"
    return ""


def refuse_mapping(value: Any) -> Any:
    """Raises ValueError for `- numpy: 2`, with what to write."""
    if isinstance(value, dict) and len(value) == 1:
        ((name, version),) = value.items()
        plain = isinstance(version, str | int | float) and not isinstance(version, bool)
        instead = write_instead(f"{name}=={version}") if plain else ""
        raise ValueError(f'must be text: "{shown(instead)}"' if instead else "must be text")
    return value


def _caret(text: str) -> str:
    """`numpy^2.1`, as Poetry writes it."""
    found = re.fullmatch(rf"({_NAME})\s*\^\s*(\d+)((?:\.\d+)*)", text)
    if not found:
        return text
    name, major, rest = found.groups()
    return f"{name}>={major}{rest},<{int(major) + 1}"


def _is_valid(text: str) -> bool:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return not Requirement(text).url
    except InvalidRequirement:
        return False
