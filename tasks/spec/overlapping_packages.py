"""Packages that install the same files: only one of each family is installed.

The rules, which `python.prefer` overrides:
- opencv: a headless one, because the others need libGL, which servers lack; the contrib one if any
  contrib one is required, because it includes the plain one.
- onnxruntime: onnxruntime-gpu, which also runs on CPUs; with a CPU build of torch, onnxruntime.
- pillow: pillow, because pillow-simd stopped at 9.5.

In the last two families, a package that is the only one required stays.
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


def chosen(family: str, required: Set[str], *, cuda: bool) -> str:
    """The package of a family to install when these are required."""
    if family != "opencv" and len(required) == 1:
        return next(iter(required))
    match family:
        case "opencv":
            contrib = "-contrib" if any("contrib" in name for name in required) else ""
            return f"opencv{contrib}-python-headless"
        case "onnxruntime":
            return "onnxruntime-gpu" if cuda else "onnxruntime"
        case _:
            return "pillow"


def check_prefer(prefer: dict[str, str]) -> dict[str, str]:
    """Raises ValueError for an unknown family or package."""
    for family, name in prefer.items():
        if family not in FAMILIES:
            hint = did_you_mean(family, FAMILIES) or f": there are {', '.join(FAMILIES)}"
            raise ValueError(f"{family} isn't a family of packages{hint}")
        if name not in FAMILIES[family]:
            raise ValueError(f"{family} is one of {', '.join(sorted(FAMILIES[family]))}")
    return prefer
