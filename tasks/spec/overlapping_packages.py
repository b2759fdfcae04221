"""Packages that overwrite each other's files: of each family one is installed.

The rules, which `python.prefer` overrides:
- opencv: a headless one, since the others need libGL, which servers lack, for windows that
  no user sees; the contrib one if contrib is asked for at all, which has all of the plain one.
- onnxruntime: onnxruntime-gpu, which runs on CPUs too; without CUDA torch onnxruntime.
- pillow: pillow; pillow-simd stopped at 9.5.

Of the last two one that is alone stays.
"""

from __future__ import annotations

from collections.abc import Set

from .problems import did_you_mean

FAMILIES: dict[str, frozenset[str]] = {
    "opencv": frozenset(
        """opencv-python opencv-python-headless
        opencv-contrib-python opencv-contrib-python-headless""".split()
    ),
    "onnxruntime": frozenset(["onnxruntime", "onnxruntime-gpu"]),
    "pillow": frozenset(["pillow", "pillow-simd"]),
}


def chosen(family: str, there: Set[str], *, cuda: bool) -> str:
    """The one of a family to install when those `there` are asked for."""
    if family != "opencv" and len(there) == 1:
        return next(iter(there))
    match family:
        case "opencv":
            contrib = "-contrib" if any("contrib" in name for name in there) else ""
            return f"opencv{contrib}-python-headless"
        case "onnxruntime":
            return "onnxruntime-gpu" if cuda else "onnxruntime"
        case _:
            return "pillow"


def check_prefer(prefer: dict[str, str]) -> dict[str, str]:
    """Raises ValueError for what is no family, or no member of it."""
    for family, name in prefer.items():
        if family not in FAMILIES:
            known = did_you_mean(family, FAMILIES) or f": there are {', '.join(FAMILIES)}"
            raise ValueError(f"{family} is no family of packages{known}")
        if name not in FAMILIES[family]:
            raise ValueError(f"{family} is one of {', '.join(sorted(FAMILIES[family]))}")
    return prefer
