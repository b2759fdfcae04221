"""torch, torchvision and torchaudio: which of their versions go together."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping

from .requirements import normalized

TORCH_FAMILY = ("torch", "torchvision", "torchaudio")


def package_names(requirements: Iterable[str]) -> set[str]:
    """The normalized names of the packages in these requirements."""
    matches = (re.match(r"\s*([A-Za-z0-9][\w.-]*)", text) for text in requirements)
    return {normalized(match[1]) for match in matches if match}


def is_pin(requirement: str) -> bool:
    """Whether it requires exactly one version of a member of the family."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        parsed = Requirement(requirement)
    except InvalidRequirement:
        return False
    exact = [each.operator == "==" and "*" not in each.version for each in parsed.specifier]
    return normalized(parsed.name) in TORCH_FAMILY and exact == [True] and parsed.marker is None


def matching_constraint(versions: Mapping[str, str], fixed: Container[str]) -> dict[str, str]:
    """Package → a constraint that gives torch and torchaudio the same minor version.

    torchaudio only works with that torch, even if its metadata doesn't say so. The constraint is
    on the one that isn't `fixed`; empty if both are, or the versions match.
    """
    minor = {name: _minor(version) for name, version in versions.items()}
    if minor["torch"] == minor["torchaudio"]:
        return {}
    for name, other in (("torch", "torchaudio"), ("torchaudio", "torch")):
        if name not in fixed:
            return {name: f"{name}=={minor[other]}.*"}
    return {}


def alternatives(versions: Mapping[str, str], broken: str) -> Iterator[dict[str, str]]:
    """Constraints, by package, for alternatives to these versions, smallest change first.

    First another version of the `broken` one, then another minor version of torch, then the
    newest of all.
    """
    kept = {name: f"{name}=={version}" for name, version in versions.items()}
    minor = {name: _minor(version) for name, version in versions.items()}
    if broken != "torch":
        same = f",=={minor['torch']}.*" if broken == "torchaudio" else ""
        yield {"torch": kept["torch"], broken: f"{broken}!={versions[broken]}{same}"}
    if broken == "torchaudio" and minor["torch"] != minor[broken]:
        yield {"torch": f"torch=={minor[broken]}.*", broken: kept[broken]}
    else:
        yield {"torch": f"torch!={minor['torch']}.*"}
    yield {}


def _minor(version: str) -> str:
    """2.11.1+cu128 → 2.11"""
    return ".".join(version.split(".")[:2])
