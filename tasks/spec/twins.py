"""Packages that overwrite each other's files: of each family one is installed.

The rules, which `python.prefer` overrides:
- opencv: the contrib one if anybody asks for contrib, which has all that the plain one has; a
  headless one if anybody asks for headless, since the others need libGL, which servers lack.
- onnxruntime: onnxruntime-gpu, which runs on CPUs too; without CUDA torch onnxruntime.
- pillow: pillow; pillow-simd stopped at 9.5.
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
    match family:
        case "opencv":
            contrib = "-contrib" if any("contrib" in name for name in there) else ""
            headless = "-headless" if any("headless" in name for name in there) else ""
            return f"opencv{contrib}-python{headless}"
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
