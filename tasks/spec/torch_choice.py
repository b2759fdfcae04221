"""The choices of python.torch, and what another value was meant to be."""

from __future__ import annotations

import re
from typing import Any

CHOICES = ("auto", "cpu", "pypi", "preinstalled", "none")
_EXPECTED = f"one of {', '.join(CHOICES)}, or a backend such as cu128, rocm6.3, xpu"
_OLDEST, _NEWEST = 8, 19
"""Of CUDA. There are 8.0 to 13.2 in 2026; which of them uv knows, the lock asks it."""


def check_torch(value: Any) -> Any:
    """A choice or a backend. Raises ValueError with what to write."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    text = str(value)
    if text in CHOICES or text == "xpu" or re.fullmatch(r"rocm\d+(\.\d+)*", text):
        return text
    if re.fullmatch(r"cu\d{2,3}", text):
        major, minor = text[2:-1], text[-1]
        if _OLDEST <= int(major) <= _NEWEST:
            return text
        raise ValueError(
            f"there is no CUDA {major}.{minor}: a backend is cu and the version of CUDA without "
            "its dot, such as cu128 for 12.8"
        )
    raise ValueError(_meant(text.strip().lower()) or _EXPECTED)


def _meant(text: str) -> str:
    if text in CHOICES or text == "xpu":
        return f"write {text}"
    if found := re.fullmatch(r"(?:\+?cu|cuda)?[ ._=-]*(\d{1,2})[._]?(\d)(?:\.\d+)?", text):
        major, minor = found.groups()
        if _OLDEST <= int(major) <= _NEWEST:
            return f"write cu{major}{minor}"
    if found := re.fullmatch(r"rocm[ ._=-]*(\d+(?:\.\d+)+)", text):
        return f"write rocm{found[1]}"
    if found := re.fullmatch(r"(?:torch *=*=? *)?v?(\d+\.\d+(?:\.\d+)?)(?:\+\w+)?", text):
        return f"a version of torch goes into python.packages: [torch=={found[1]}]"
    if text in ("cuda", "gpu", "nvidia", "latest", "default"):
        return "write auto, the build for this machine's driver, or a backend such as cu128"
    return ""
