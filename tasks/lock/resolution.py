"""One resolution for all: the versions of all packages that fit ComfyUI and every custom node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..host.python import uv_errors
from ..host.python.build_log import Missing
from ..host.system.failure import Failure
from ..spec import Package
from ..spec.overlapping_packages import FAMILIES, chosen
from .conflicts import explanation
from .conflicts.conflict import Conflict, NoAnswer
from .conflicts.inquiry import Inquiry
from .conflicts.search import find_conflicts
from .requirements import normalized, without_nodes
from .resolver import Problem, run_uv
from .torch_family import matching_constraint


@dataclass(frozen=True)
class Solution:
    """Packages that fit together, and the optional nodes that are left out for that."""

    packages: dict[str, Package]
    left_out: dict[str, str]
    """Optional nodes that conflict with others, and why, on every machine."""
    unavailable: dict[str, str]
    """Optional nodes with a package that isn't available, and why, on this machine and now."""
    retry: tuple[str, ...]
    """Those of them whose packages could not be reached: every run tries them again."""
    missing: tuple[Missing, ...]
    """What builds lacked: a run that finds one of these tries again."""
    reduced: dict[str, str]
    """Replaced package → the one of its family that replaces it."""
    torch: str


def solve(problem: Problem) -> Solution:
    """Raises Failure that names the conflicting lines, and overrides that would solve it."""
    lines = [line for each in problem.asked for line in each.lines]
    direct = {normalized(line.name) for line in lines if line.name and line.applies}
    problem = replace(problem, replacements=_replacements(problem, direct))
    reasons: dict[str, str] = {}
    leaving: dict[str, Conflict] = {}
    while True:
        packages, left = _resolve(problem)
        if packages is None:
            problem = replace(problem, obey_metadata=False, matched={})
            continue
        leaving |= left
        reasons |= {name: explanation.left_out_reason(each, problem) for name, each in left.items()}
        problem = replace(problem, asked=without_nodes(problem.asked, left))
        refused = _with_wrong_hashes(problem, packages)
        if refused:
            reasons |= refused
            problem = replace(problem, asked=without_nodes(problem.asked, refused))
            continue
        twins = _replacements(problem, packages)
        matching = _matching_constraint(problem, packages)
        if set(twins.values()) <= set(packages) and not matching:
            # The replaced package needs nothing that its replacement doesn't.
            kept = {n: package for n, package in packages.items() if n not in twins}
            return _solution(problem, _with_asked_hashes(problem, kept), twins, reasons, leaving)
        problem = replace(
            problem,
            replacements=_merged_replacements(problem.replacements, twins),
            matched={**problem.matched, **matching},
        )


def _solution(
    problem: Problem,
    packages: dict[str, Package],
    twins: Mapping[str, str],
    reasons: Mapping[str, str],
    leaving: Mapping[str, Conflict],
) -> Solution:
    alone = {name: each for name, each in leaving.items() if each.alone or not each.reachable}
    lacking = [lack for each in alone.values() if (lack := explanation.missing_for_build(each))]
    return Solution(
        packages=packages,
        left_out={name: why for name, why in reasons.items() if name not in alone},
        unavailable={name: why for name, why in reasons.items() if name in alone},
        retry=tuple(sorted(name for name, each in alone.items() if not each.reachable)),
        missing=tuple(dict.fromkeys(lacking)),
        reduced=_merged_replacements(problem.replacements, twins),
        torch=_torch_build(problem, packages),
    )


def _resolve(problem: Problem) -> tuple[dict[str, Package] | None, Mapping[str, Conflict]]:
    """The packages, and the conflicts of the optional nodes that are left out for them.

    None instead of packages: override torch against its metadata. Raises Failure.
    """
    inquiry = Inquiry(problem)
    answer = inquiry.ask_all(problem.demands)
    if not answer.fits and problem.pinned:
        return None, {}
    try:
        if not answer.fits and uv_errors.refused(answer.output):
            raise NoAnswer(answer, problem.log)
        verdict = find_conflicts(inquiry)
    except NoAnswer as error:
        raise explanation.no_answer_failure(error) from None
    if verdict.hard:
        raise explanation.failure(verdict, problem)
    return dict(verdict.answer.packages), verdict.leaving


def _with_wrong_hashes(problem: Problem, packages: Mapping[str, Package]) -> dict[str, str]:
    """Optional nodes that require hashes which no file of the package has; uv doesn't check.

    Raises Failure for others.
    """
    refused: dict[str, str] = {}
    others = []
    for each in problem.asked:
        for line in each.lines:
            package = packages.get(normalized(line.name or ""))
            if package and line.hashes and line.applies and line.hashes.isdisjoint(package.sha256):
                message = (
                    f"{each.owner} requires {line.name} by hashes that no file of "
                    f"{package.shown} has ({line.place}): correct them in a fork"
                )
                if each.node and each.node.optional:
                    refused[each.node.name] = message
                else:
                    others.append(message)
    if others:
        raise Failure("\n    ".join(others), problem.log)
    return refused


def _with_asked_hashes(problem: Problem, packages: dict[str, Package]) -> dict[str, Package]:
    """Keep of each package only the files that the requirements' hashes allow."""
    for each in problem.asked:
        for line in each.lines:
            name = normalized(line.name or "")
            if name in packages and line.hashes and line.applies:
                allowed = tuple(d for d in packages[name].sha256 if d in line.hashes)
                packages[name] = packages[name].model_copy(update={"sha256": allowed})
    return packages


def _replacements(problem: Problem, packages: Iterable[str]) -> dict[str, str]:
    """Package to replace → the one of its family that replaces it."""
    replacements: dict[str, str] = {}
    for family, members in FAMILIES.items():
        required = members & set(packages)
        if not required:
            continue
        preferred = problem.run.machine.python.prefer.get(family)
        one = preferred or chosen(family, required, cuda=problem.torch != "cpu")
        replacements |= {name: one for name in required if name != one}
    return replacements


def _merged_replacements(before: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Both mappings; a replacement of `before` may itself be replaced in `more`."""
    return {**{gone: more.get(one, one) for gone, one in before.items()}, **more}


def _matching_constraint(problem: Problem, packages: Mapping[str, Package]) -> dict[str, str]:
    """A constraint that pairs torch and torchaudio when their metadata doesn't.

    torchaudio up to 2.11.0 requires no torch.
    """
    versions = {n: packages[n].version for n in ("torch", "torchaudio") if n in packages}
    if None in versions.values() or len(versions) < 2:
        return {}
    if not problem.obey_metadata and problem.overridden.intersection(versions):
        return {}
    fixed = {*problem.held, *problem.overridden, *problem.matched}
    constraint = matching_constraint(
        {name: str(version) for name, version in versions.items()}, fixed
    )
    return {} if constraint and _asks_for(problem, packages, "torchaudio", "torch") else constraint


def _asks_for(problem: Problem, packages: Mapping[str, Package], one: str, other: str) -> bool:
    """Whether a chosen package's metadata requires the other: resolve it alone and look.

    uv has that metadata in its cache, from whichever index or folder the package came.
    """
    chosen = {name: f"{name}=={packages[name].version}" for name in (one, other)}
    return other in run_uv(problem, [chosen[one]], [chosen[other]]).packages


def _torch_build(problem: Problem, packages: Mapping[str, Package]) -> str:
    """The torch build of the result; after uv's `auto` from the version, as in 2.9.0+cu128."""
    if problem.torch != "auto":
        return problem.torch
    torch = packages.get("torch")
    _, _, local = str(torch.version if torch else "").partition("+")
    return local or "pypi"
