"""What became of each custom node, told by the process that loads it (`services/inside/report`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

LONGEST = 8 << 20
"""Bytes of a report; 200 failed custom nodes with their tracebacks take some two million."""
EXTRAS = ("comfy_extras", "comfy_api_nodes")
"""Where ComfyUI's own are."""


@dataclass(frozen=True)
class Error:
    """An exception as values."""

    type: str
    message: str
    """Its first line."""
    trace: str = ""
    """The end of its traceback."""
    modules: tuple[str, ...] = ()
    """The modules that it passed through, its causes included."""
    library: str | None = None
    """The shared library that the dynamic loader did not find."""
    key: str | None = None
    """What a KeyError did not find."""
    module: str | None = None
    """The module that was imported and isn't there."""
    errno: int | None = None
    file: str | None = None
    """The file that an OSError names."""
    address: str | None = None
    """Where a socket that is taken was to be bound, as host:port."""
    root: str | None = None
    """Type and message of the exception that caused it, where there is one."""

    def __str__(self) -> str:
        text = f"{self.type}: {self.message}" if self.message else self.type
        return f"{text} (caused by {self.root})" if self.root else text

    def masked(self, value: str, name: str) -> Error:
        """The same with `name` wherever it repeats `value`."""
        texts: dict[str, Any] = {
            key: text.replace(value, name)
            for key in ("message", "trace", "root", "file", "key")
            if isinstance(text := getattr(self, key), str)
        }
        return replace(self, **texts)


@dataclass(frozen=True)
class Pack:
    """A custom node, or an extra of ComfyUI's, as far as the process came with it."""

    path: str
    parent: str
    begun: str | None = None
    """The phase that was begun and not ended: prestartup or import."""
    loaded: bool = False
    empty: bool = False
    """It was executed, and has nothing that ComfyUI looks for."""
    error: Error | None = None
    seconds: float = 0.0
    asked: tuple[str, ...] = ()
    """What it asked for that isn't there: variables, ".env", "gpu"."""
    threads: tuple[str, ...] = ()
    """Threads of its that keep the process from ending."""

    @property
    def name(self) -> str:
        return Path(self.path).name


@dataclass(frozen=True)
class Report:
    """One process. What it doesn't know is no failure."""

    attached: bool = False
    """False: ComfyUI's loader was not found, or our own module failed."""
    whole: bool = False
    """It tells when ComfyUI has loaded everything."""
    complete: bool = False
    """ComfyUI has loaded everything."""
    packs: Mapping[str, Pack] = field(default_factory=dict)
    """Custom nodes by their name in custom_nodes, in the order in which they were loaded."""
    extras: Mapping[str, Pack] = field(default_factory=dict)
    """ComfyUI's own, by path below it: comfy_extras/nodes_audio.py."""
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Custom node, a file without its ending, → its node classes; empty until it is complete."""

    @property
    def unfinished(self) -> str | None:
        """The custom node that was being loaded, the innermost suspicion of what ended it."""
        open_ = [name for name, pack in self.packs.items() if pack.begun]
        return open_[-1] if open_ else None

    @property
    def settled(self) -> bool:
        """Whether it tells what became of each custom node."""
        return self.attached and self.complete


def of_process(folder: Path, pid: int) -> Report | None:
    """The report of a process, the newest of that pid where it has ended; None: there is none."""
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
    """A report as far as it goes; None when there is none. Never raises for what is in it."""
    try:
        with file.open("rb") as opened:
            content = opened.read(LONGEST)
    except OSError:
        return None
    return _assembled(_entries(content))


def _entries(content: bytes) -> list[dict[str, Any]]:
    """The events since the process was last started by exec; a line that is cut off is none."""
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
                    told = entry["classes"]
                    classes = {name: tuple(map(str, found)) for name, found in told.items()}
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
    )


def _after(before: Pack | None, entry: dict[str, Any]) -> Pack:
    """What is known of a custom node after one more event. A failure of either phase counts."""
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
    return Error(
        type=str(found["type"]),
        message=str(found["message"]),
        trace=str(found.get("trace", "")),
        modules=tuple(map(str, found.get("modules") or ())),
        library=str(found["library"]) if found.get("library") else None,
        key=str(found["key"]) if found.get("key") else None,
        errno=number if isinstance(number, int) else None,
        file=str(found["file"]) if found.get("file") else None,
        address=str(found["address"]) if found.get("address") else None,
        root=f"{root['type']}: {root['message']}" if isinstance(root, dict) else None,
    )
