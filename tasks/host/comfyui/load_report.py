"""What became of each custom node, told by the process that loads it (`services/inside/report`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

LONGEST = 8 << 20
"""Bytes of a report; 200 failed custom nodes with tracebacks take about two million."""
EXTRAS = ("comfy_extras", "comfy_api_nodes")
"""Folders of ComfyUI's own extra nodes."""


@dataclass(frozen=True)
class Error:
    """An exception as values."""

    type: str
    message: str
    """Its first line."""
    trace: str = ""
    """The end of its traceback."""
    modules: tuple[str, ...] = ()
    """The modules in its traceback and those of its causes."""
    library: str | None = None
    """The shared library that the dynamic loader didn't find."""
    key: str | None = None
    """The missing key of a KeyError."""
    module: str | None = None
    """The missing module of a ModuleNotFoundError."""
    errno: int | None = None
    file: str | None = None
    """The file that an OSError names."""
    address: str | None = None
    """The address in use that a socket couldn't be bound to, as host:port."""
    root: str | None = None
    """Type and message of its first cause, if any."""

    def __str__(self) -> str:
        text = f"{self.type}: {self.message}" if self.message else self.type
        return f"{text} (caused by {self.root})" if self.root else text

    def masked(self, value: str, name: str) -> Error:
        """The same with `name` in place of `value`."""
        texts: dict[str, Any] = {
            key: text.replace(value, name)
            for key in ("message", "trace", "root", "file", "key")
            if isinstance(text := getattr(self, key), str)
        }
        return replace(self, **texts)


@dataclass(frozen=True)
class Pack:
    """A custom node, or one of ComfyUI's extra nodes, as far as the process loaded it."""

    path: str
    parent: str
    begun: str | None = None
    """The phase that has begun and not ended: prestartup or import."""
    loaded: bool = False
    empty: bool = False
    """It was executed and has nothing that ComfyUI looks for."""
    error: Error | None = None
    seconds: float = 0.0
    asked: tuple[str, ...] = ()
    """What it asked for that is missing: variables, ".env", "gpu"."""
    threads: tuple[str, ...] = ()
    """Its threads that keep the process from ending."""

    @property
    def name(self) -> str:
        return Path(self.path).name


@dataclass(frozen=True)
class Catalogue:
    """What a build's process tells of all node classes, ComfyUI's own included."""

    choices: Mapping[str, tuple[str, ...]]
    """Class → its inputs that are chosen from a list, as models are."""
    web: tuple[str, ...] = ()
    """Folders of JavaScript that the page loads; relative ones are below ComfyUI."""


@dataclass(frozen=True)
class Report:
    """The report of one process. What is unknown is not a failure."""

    attached: bool = False
    """False: ComfyUI's loader was not found, or our own module failed."""
    whole: bool = False
    """The process reports when ComfyUI has loaded everything."""
    complete: bool = False
    """ComfyUI has loaded everything."""
    packs: Mapping[str, Pack] = field(default_factory=dict)
    """Custom nodes by their name in custom_nodes, in load order."""
    extras: Mapping[str, Pack] = field(default_factory=dict)
    """ComfyUI's extra nodes by relative path: comfy_extras/nodes_audio.py."""
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Custom node (a file without .py) → its node classes; empty until the report is complete."""
    catalogue: Catalogue | None = None
    """None: not known. Only a proof asks for it."""

    @property
    def unfinished(self) -> str | None:
        """The custom node that was being loaded: the first suspect if the process ended."""
        begun = [name for name, pack in self.packs.items() if pack.begun]
        return begun[-1] if begun else None

    @property
    def settled(self) -> bool:
        """Whether it has the result of each custom node."""
        return self.attached and self.complete


def in_words(report: Report | None) -> str:
    """How far a process is, for people."""
    if report is None or not (report.packs or report.complete):
        return "ComfyUI starts"
    count = f"{len(report.packs)} custom node{'' if len(report.packs) == 1 else 's'}"
    if report.complete:
        return f"ComfyUI has loaded {count}"
    if report.unfinished:
        return f"ComfyUI loads custom node {report.unfinished}, number {len(report.packs)}"
    return f"ComfyUI has loaded {count} so far"


def of_process(folder: Path, pid: int) -> Report | None:
    """The report of a process, or of the last one with that pid; None: there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        return read(folder / f"{pid}-{stat.rpartition(b')')[2].split()[19].decode()}.jsonl")
    except (OSError, LookupError):
        return newest(folder, f"{pid}-*.jsonl")


def newest(folder: Path, pattern: str = "*.jsonl") -> Report | None:
    """The newest report of a folder; None: there is none."""
    try:
        found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
    except OSError:
        return None
    return read(found[-1]) if found else None


def read(file: Path) -> Report | None:
    """A report, complete or not; None when there is none. Never raises for its content."""
    try:
        with file.open("rb") as opened:
            content = opened.read(LONGEST)
    except OSError:
        return None
    return _assembled(_entries(content))


def _entries(content: bytes) -> list[dict[str, Any]]:
    """The events since the process last called exec, without lines that are cut off."""
    found: list[dict[str, Any]] = []
    for line in content.splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            if entry.get("event") == "start":
                found.clear()
            found.append(entry)
    return found


def _assembled(entries: list[dict[str, Any]]) -> Report:
    every: dict[str, Pack] = {}
    attached = whole = complete = fault = False
    classes: dict[str, tuple[str, ...]] = {}
    catalogue = None
    for entry in entries:
        try:
            match entry.get("event"):
                case "attached":
                    attached, whole = True, bool(entry.get("whole"))
                case "fault":
                    fault = True
                case "begin" | "end" | "asked":
                    every[entry["path"]] = _after(every.get(entry["path"]), entry)
                case "loaded":
                    complete = True
                    found = entry["classes"]
                    classes = {name: tuple(map(str, names)) for name, names in found.items()}
                    catalogue = catalogue_of(entry)
        except (AssertionError, AttributeError, LookupError, TypeError, ValueError):
            fault = True
    own = {pack.path: pack for pack in every.values() if pack.parent in EXTRAS}
    return Report(
        attached=attached and not fault,
        whole=whole and not fault,
        complete=complete,
        packs={pack.name: pack for path, pack in every.items() if path not in own},
        extras={f"{pack.parent}/{pack.name}": pack for pack in own.values()},
        classes=classes,
        catalogue=catalogue,
    )


def catalogue_of(found: Any) -> Catalogue | None:
    """None where there is none, or it is malformed."""
    try:
        choices = {str(name): tuple(map(str, of)) for name, of in found["choices"].items()}
        return Catalogue(choices, tuple(map(str, found["web"])))
    except (AttributeError, LookupError, TypeError):
        return None


def _after(before: Pack | None, entry: dict[str, Any]) -> Pack:
    """A custom node after one more event. A failure of either phase counts."""
    if entry["event"] == "begin":
        known = before or Pack(str(entry["path"]), str(entry.get("parent", "custom_nodes")))
        return replace(known, begun=str(entry["phase"]))
    if entry["event"] == "asked":
        assert before is not None
        return replace(before, asked=(*before.asked, str(entry["name"])))
    known = before or Pack(str(entry["path"]), "custom_nodes")
    error = _error(entry.get("error")) or known.error
    return replace(
        known,
        begun=None,
        loaded=entry["phase"] == "import" and bool(entry["ok"]) and not known.error,
        empty=bool(entry.get("empty")),
        error=error,
        seconds=known.seconds + float(entry["seconds"]),
        threads=(*known.threads, *map(str, entry.get("threads") or ())),
    )


def _error(found: Any) -> Error | None:
    if not isinstance(found, dict):
        return None
    root = found.get("root")
    number = found.get("errno")
    names = ("library", "key", "module", "file", "address")
    texts: dict[str, Any] = {name: str(found[name]) for name in names if found.get(name)}
    return Error(
        type=str(found["type"]),
        message=str(found["message"]),
        trace=str(found.get("trace", "")),
        modules=tuple(map(str, found.get("modules") or ())),
        errno=number if isinstance(number, int) else None,
        root=f"{root['type']}: {root['message']}" if isinstance(root, dict) else None,
        **texts,
    )
