"""Why packages can't be had: whose lines are to blame, in one sentence, and what would help."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tasks.host import process
from tasks.requirements import Asked, Line
from tasks.spec import CustomNode, Package

SHOWN = 6
"""Lines that a message names, and overrides that are tried."""


@dataclass(frozen=True)
class Conflict:
    """What uv said, and the lines that name what it complains of."""

    output: str
    culprits: tuple[Culprit, ...]
    held: Mapping[str, Package]
    """What the lock holds still, which may be a part of it."""
    matched: Mapping[str, str]
    """Constraints of ours on the torch family, by package, which may be another."""

    @property
    def optional(self) -> list[CustomNode]:
        return [c.node for c in self.culprits if c.node and c.node.optional]

    @property
    def is_final(self) -> bool:
        """Whether the same question would get the same answer, whatever the network does."""
        return "No solution found" in self.output or "Failed to build" in self.output

    def explain(self, settles: Callable[[str], bool] | None = None) -> str:
        """Who asks for what, uv's own sentence and, with `settles`, what to do.

        `settles` says whether an override makes all others fit.
        """
        lines = [f"{c.owner} asks for {c.line.text!r} ({c.line.place})" for c in self.culprits]
        names = {normal(c.line.name) for c in self.culprits if c.line.name}
        held = [
            f"the lock holds {name} {package.version} (doit update torch lets it move)"
            for name, package in self.held.items()
            if name in names
        ]
        matched = [
            f"{text} matches torch and torchaudio, whose metadata doesn't (python.overrides wins "
            "over that)"
            for name, text in self.matched.items()
            if name in names
        ]
        parts = ["packages can't be resolved", *lines[:SHOWN], *held, *matched, gist(self.output)]
        return "; ".join([*parts, self._mend(settles)] if settles else parts)

    def _mend(self, settles: Callable[[str], bool]) -> str:
        if "Failed to build" in self.output:
            return "see the log for what its build needs, or take another version: python.overrides"
        if "No solution found" not in self.output:
            return "see that it can be reached, then run doit again"
        for text in self._overrides():
            if settles(text):
                return f"this would settle it: python.overrides: [{text!r}]"
        return "correct those lines, or settle it with python.overrides"

    def _overrides(self) -> Iterator[str]:
        """Each of the lines in conflict as the one that wins, then any version of the package."""
        by_name: dict[str, dict[str, None]] = {}
        for culprit in self.culprits:
            name = normal(culprit.line.name or "")
            if name and name not in self.held and name not in self.matched:
                text = culprit.line.text.partition(";")[0].partition(" --hash")[0].strip()
                by_name.setdefault(name, {})[text] = None
        texts = [text for found in by_name.values() if len(found) > 1 for text in found]
        yield from [*texts, *by_name][:SHOWN]


@dataclass(frozen=True)
class Culprit:
    """A line that names a package which uv complains of."""

    owner: str
    node: CustomNode | None
    line: Line


def blame(
    asked: Sequence[Asked],
    output: str,
    held: Mapping[str, Package],
    matched: Mapping[str, str],
) -> Conflict:
    words = {normal(word) for word in re.findall(r"[A-Za-z0-9][\w.-]*", gist(output))}
    if "Failed to fetch" in output:
        # That names whatever package was asked for first: only a line's own URL is to blame.
        words = set()
    culprits = tuple(
        Culprit(each.owner, each.node, line)
        for each in asked
        for line in each.lines
        if (line.name and normal(line.name) in words) or (line.url and line.url in output)
    )
    return Conflict(output, culprits, held, matched)


def gist(output: str) -> str:
    """uv's error in one line, without its advice on other things."""
    error = re.split(r"^(?:error: |  × )", output, maxsplit=1, flags=re.M)[-1]
    error = re.split(r"^hint:", error, maxsplit=1, flags=re.M)[0]
    return re.sub(r"\s+", " ", error.replace("cause:", "")).strip() or process.last_line(output)


def refused(output: str) -> str | None:
    """What to say of an index that wants other credentials, if that is it; of nobody's lines.

    uv then takes each package for one that the index doesn't have, and says why in a hint.
    """
    found = re.search(r"^hint: An index URL \((\S+)\) .*\((40[13] \w+)\)", output, re.M)
    return found and (
        f"{found[1]} answers {found[2]}: correct its credentials, which are in the variables that "
        "python.extra_index_urls names, in UV_INDEX or in ~/.netrc"
    )


def normal(name: str) -> str:
    """A package's name as the index spells it (PEP 503)."""
    from packaging.utils import canonicalize_name

    return str(canonicalize_name(name.strip(".-_")))
