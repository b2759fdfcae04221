"""What became of a custom node, as a value: in the build's proof, or in an instance."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from pydantic import TypeAdapter

from ..system import files
from . import load_report, remedies
from .load_report import EXTRAS, Catalogue, Error, Pack, Report

SHOWN = 3
"""Threads that a sentence names."""


class Outcome(str, Enum):
    """The result of a custom node's load. UNKNOWN is not a failure."""

    LOADED = "loaded"
    FAILED = "failed"
    """It raised, or returned something that ComfyUI can't use."""
    EMPTY = "empty"
    """It has nothing that ComfyUI looks for."""
    SKIPPED = "skipped"
    """ComfyUI loaded everything it wanted to, and left this one out."""
    ENDED = "ended"
    """It ends the process; without it ComfyUI starts."""
    HUNG = "hung"
    """Its import didn't end in time."""
    DISPLACES = "displaces"
    """It replaces locked packages by other versions."""
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Result:
    """The result for one custom node; `str` is a predicate, "doesn't import: …"."""

    outcome: Outcome
    seconds: float = 0.0
    error: Error | None = None
    code: int | None = None
    """The exit code of the process that it ended; negative: the signal."""
    classes: tuple[str, ...] | None = None
    """The node classes that it defines; None: not known."""
    asked: tuple[str, ...] = ()
    """What it asked for that is missing: variables, ".env", "gpu"."""
    threads: tuple[str, ...] = ()
    """Its threads that keep the process from ending."""
    displaced: tuple[str, ...] = ()
    """The locked packages, "idna 3.7 (by 3.6)"."""

    @property
    def loaded(self) -> bool:
        return self.outcome is Outcome.LOADED

    @property
    def failed(self) -> bool:
        return self.outcome not in (Outcome.LOADED, Outcome.UNKNOWN)

    @property
    def fatal(self) -> bool:
        """Whether instances must start without it."""
        return self.outcome in (Outcome.ENDED, Outcome.HUNG, Outcome.DISPLACES)

    def __str__(self) -> str:
        match self.outcome:
            case Outcome.LOADED:
                return "is loaded"
            case Outcome.FAILED:
                advice = remedies.mend(self.error) if self.error else None
                why = self.error or "ComfyUI can't use what it defines"
                return f"doesn't import: {why}" + (f" ({advice})" if advice else "")
            case Outcome.EMPTY:
                return "was not loaded: it has neither NODE_CLASS_MAPPINGS nor comfy_entrypoint"
            case Outcome.SKIPPED:
                return "was not loaded: ComfyUI skipped it"
            case Outcome.ENDED if self.code is not None and self.code < 0:
                return f"ends ComfyUI (signal {-self.code})"
            case Outcome.ENDED:
                return f"ends ComfyUI (exit code {self.code})"
            case Outcome.HUNG:
                return f"didn't finish its import in {self.seconds:.0f} s (comfyui.proof_timeout)"
            case Outcome.DISPLACES:
                what = ", ".join(self.displaced)
                return f"replaces locked packages while it is loaded: {what}"
        return "may or may not be loaded: its process didn't report it"


_RESULT = TypeAdapter(Result)


def is_own(name: str) -> bool:
    """Whether this is one of ComfyUI's own nodes."""
    return name.startswith(tuple(f"{folder}/" for folder in EXTRAS))


def of_report(report: Report, names: Collection[str] = ()) -> dict[str, Result]:
    """Results by name in custom_nodes, `names` included, and of ComfyUI's own nodes that failed."""
    results = {name: _of(pack, report) for name, pack in report.packs.items()}
    results |= {
        name: _of(pack, report)
        for name, pack in report.extras.items()
        if not pack.loaded and not pack.begun
    }
    missing = Outcome.SKIPPED if report.settled else Outcome.UNKNOWN
    return results | {name: Result(missing) for name in names if name not in results}


def failed(reports: Path, pid: int) -> dict[str, Result]:
    """What failed in a process; empty where that isn't known."""
    report = load_report.of_process(reports, pid)
    results = of_report(report) if report else {}
    return {name: result for name, result in results.items() if result.failed}


def _of(pack: Pack, report: Report) -> Result:
    outcome = Outcome.FAILED
    if pack.begun:
        outcome = Outcome.UNKNOWN
    elif pack.loaded:
        outcome = Outcome.LOADED
    elif pack.empty and not pack.error:
        outcome = Outcome.EMPTY
    own = report.classes.get(pack.name.removesuffix(".py"), ())
    classes = tuple(sorted(own)) if report.complete and pack.loaded else None
    return Result(
        outcome=outcome,
        seconds=round(pack.seconds, 3),
        error=pack.error,
        classes=classes,
        asked=pack.asked,
        threads=pack.threads[:SHOWN],
    )


def receipt_of(generation: Path) -> Path:
    return generation.with_name(f"{generation.name}.validation.json")


def write(
    generation: Path,
    results: dict[str, Result],
    unproved: Collection[str],
    catalogue: Catalogue | None = None,
    *,
    asked: bool = False,
) -> None:
    """Record the results of a generation's validation; `asked` is whether it asked for the
    catalogue."""
    found = {"catalogue": asdict(catalogue) if catalogue else None} if asked else {}
    files.write_receipt(
        receipt_of(generation),
        {
            "nodes": {name: asdict(result) for name, result in results.items()},
            "unproved": sorted(unproved),
            **found,
        },
    )


def read(generation: Path) -> dict[str, Result]:
    """The results of a generation's last validation.

    An entry that this version can't read is left out: its result isn't known.
    """
    found = files.read_receipt(receipt_of(generation), nodes=dict).get("nodes", {})
    results = {}
    for name, entry in found.items():
        with contextlib.suppress(ValueError):
            results[str(name)] = _RESULT.validate_python(entry)
    return results


def failed_in_build(generation: Path) -> frozenset[str]:
    """The nodes that an instance can't have: they failed, and not for want of a GPU or the like."""
    found = {name for name, result in read(generation).items() if result.failed}
    return frozenset(found - unproved(generation))


def unproved(generation: Path) -> frozenset[str]:
    """The nodes whose failure may be due to something that only run time has."""
    found = files.read_receipt(receipt_of(generation), unproved=list).get("unproved", [])
    return frozenset(name for name in found if isinstance(name, str))


def asked_for_catalogue(generation: Path) -> bool:
    """Whether its validation asked for all node classes, as it does for workflows."""
    return "catalogue" in files.read_receipt(receipt_of(generation))


def catalogue(generation: Path) -> Catalogue | None:
    """All node classes that its validation found; None: not known."""
    return load_report.catalogue_of(files.read_receipt(receipt_of(generation)).get("catalogue"))
