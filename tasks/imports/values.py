"""Values in documents that others write: of the right kind, or empty."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}|\$(\w+)")


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def texts(value: Any) -> list[str]:
    return [each.strip() for each in listing(value) if isinstance(each, str)]


def listing(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def below_models(path: str) -> str:
    """What follows a folder named models in a path; empty without one."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    if "models" not in parts:
        return ""
    # The models folder of a ComfyUI in /models/ComfyUI/models is the last one.
    last = len(parts) - 1 - parts[::-1].index("models")
    return "/".join(parts[last + 1 :])


def expanded(value: str) -> str:
    """Shell variables by what stands for them otherwise (`${A:-otherwise}`); others stay.

    Those of this process aren't used: their values may be secrets.
    """
    return VARIABLE.sub(lambda found: found[2] if found[2] is not None else found[0], value)
