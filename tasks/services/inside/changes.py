"""What a process changes in the generation that it runs from, told by the process itself.

Custom nodes rewrite tracked files of theirs, move their own checkout and install packages, at
their import or whenever they like. From outside that looks like a person's edit. So each fact
becomes one JSON line in a file beside the generation, which all its processes append to and
`host/changes.py` reads:

- `file`: a tracked file was opened for writing, replaced or removed, or a child of a custom
  node's import changed it
- `head`: the commit that a checkout was moved to while its custom node was loaded
- `git`: a checkout in which a child was started that may move it
- `gone`, `new`: names in site-packages; `nodes`: names that appeared in custom_nodes

`pack` is the custom node that did it, null where that isn't known.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from . import children, folders, report

FILE = "COMFY_MACHINE_CHANGES"
"""The variable with the file."""
ENDING = ".changes.jsonl"
NODES = "custom_nodes"
WRITES = os.O_WRONLY | os.O_RDWR | os.O_TRUNC
PATHS = {
    "os.rename": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.truncate": ((0, None),),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
    "sqlite3.connect": ((0, None),),
}
"""Audit event → its arguments that are a changed path, each with the one that is its folder."""
CHILDREN = frozenset({"subprocess.Popen", "os.system", "os.posix_spawn", "os.spawn", "os.fork"})
SEEN = 4096
"""Paths that are not looked at again."""


class Changes:
    """The file. What fails in here ends it, and nothing else."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._folder = os.path.realpath(file.removesuffix(ENDING))
        self._told = set(_lines(file))
        self._seen: set[str] = set()
        self._on = True
        self._known: dict[str, str] | None = None
        version = "python{}.{}".format(*sys.version_info)
        self._site = folders.Names(os.path.join(sys.prefix, "lib", version, "site-packages"))  # noqa: PTH118
        self._nodes = folders.Names(os.path.join(self._folder, "ComfyUI", NODES))  # noqa: PTH118
        self._packages = self._site.look()
        self._installer: str | None = None
        """The custom node that last started pip or uv: they may end at any time."""
        self._before: dict[str, Any] = {}
        self._stamps: dict[str, dict[str, Any]] = {}

    def hear(self) -> Callable[[str, tuple[Any, ...]], None]:
        """What hears audit events. It must not raise: that would end what is being done. Nearly
        all events are others, so one look-up is all they cost."""
        told: dict[str, Callable[[tuple[Any, ...]], None]] = dict.fromkeys(
            CHILDREN, functools.partial(self._safely, self._bear)
        )
        told["open"] = self._opened
        for event, places in PATHS.items():
            told[event] = functools.partial(self._safely, self._change, places)
        wanted = told.get

        def hear(event: str, arguments: tuple[Any, ...]) -> None:
            found = wanted(event)
            if found is not None:
                found(arguments)

        return hear

    def _opened(self, arguments: tuple[Any, ...]) -> None:
        path, _, flags = arguments
        if isinstance(flags, int) and flags & WRITES:
            self._safely(self._touch, path, None, True)

    def _change(self, places: Any, arguments: tuple[Any, ...]) -> None:
        for path, folder in places:
            base = None if folder is None else arguments[folder]
            self._touch(arguments[path], base, False)

    def begin(self, path: str) -> None:
        self._safely(self._begin, path)

    def end(self, path: str) -> None:
        self._safely(self._end, path)

    def _safely(self, function: Callable[..., None], *arguments: Any) -> None:
        if not self._on:
            return
        try:
            function(*arguments)
        except Exception:
            self._on = False
            with contextlib.suppress(Exception):
                traceback.print_exc()

    def _tell(self, pack: str | None, **entry: Any) -> None:
        line = json.dumps({"pack": pack, **entry}, sort_keys=True)
        if line in self._told:
            return
        self._told.add(line)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        file = os.open(self._file, flags, 0o644)
        try:
            os.write(file, line.encode() + b"\n")
        finally:
            os.close(file)

    def _installed(self) -> None:
        """The packages added to and removed from the environment since the last look."""
        before = self._packages
        self._packages = there = self._site.look()
        if there != before and self._installer is not None:
            new = sorted(name for name in there - before if name.endswith(".dist-info"))
            self._tell(self._installer, gone=sorted(before - there), new=new)

    def _touch(self, path: Any, base: Any, follow: bool) -> None:
        """A path is about to be written, replaced or removed."""
        if self._installer is not None:
            self._installed()
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        place = os.fsdecode(path)
        if "__pycache__" in place:
            return
        if isinstance(base, int) and base >= 0:
            place = os.path.join(os.readlink(f"/proc/self/fd/{base}"), place)  # noqa: PTH115, PTH118
        place = os.path.abspath(place)  # noqa: PTH100
        if place in self._seen:
            return
        if len(self._seen) >= SEEN:
            self._seen.clear()
        self._seen.add(place)
        if follow:
            real = os.path.realpath(place)
        else:
            folder, name = os.path.split(place)
            real = os.path.join(os.path.realpath(folder), name)  # noqa: PTH118
        if not real.startswith(f"{self._folder}/"):
            return
        inside = real[len(self._folder) + 1 :]
        tracked = self._tracked()
        if inside in tracked:
            self._tell(self._who(), file=inside)
        elif os.path.isdir(real):  # noqa: PTH112
            for name in [name for name in tracked if name.startswith(f"{inside}/")]:
                self._tell(self._who(), file=name)

    def _who(self) -> str | None:
        """The custom node that is loaded at this moment, else the innermost whose code runs."""
        load = report.current()
        if load is not None and (name := self._pack_of(load.path)):
            return name
        frame = sys._getframe(1)
        while frame is not None:
            if name := self._pack_of(frame.f_code.co_filename):
                return name
            frame = frame.f_back  # type: ignore[assignment]
        return None

    def _pack_of(self, path: str) -> str | None:
        inside = path.removeprefix(f"{self._nodes.folder}/")
        return inside.partition("/")[0] if inside != path else None

    def _tracked(self) -> dict[str, str]:
        """Tracked file → its checkout, both relative to the generation."""
        if self._known is None:
            known: dict[str, str] = {}
            with contextlib.suppress(OSError, ValueError, AttributeError):
                name = f"{self._folder}.files.json"
                with open(name, encoding="utf-8") as file:  # noqa: PTH123
                    for place, stamps in json.load(file).items():
                        known |= {f"{place}/{each}": place for each in stamps}
            self._known = known
        return self._known

    def _bear(self, arguments: tuple[Any, ...]) -> None:
        """A child is about to be started."""
        load = report.current()
        if load is not None and load.path in self._before and load.path not in self._stamps:
            self._stamps[load.path] = self._look(load.path)
        words, folder = children.command(arguments)
        if children.moves(words) and (place := self._checkout(folder)):
            self._tell(self._who(), git=place)
        if children.installs(words):
            self._installer = self._who()
            self._installed()

    def _checkout(self, folder: str) -> str | None:
        """The checkout around a folder, relative to the generation."""
        at = os.path.realpath(folder)
        while at.startswith(f"{self._folder}/"):
            if os.path.lexists(os.path.join(at, ".git")):  # noqa: PTH118
                return at[len(self._folder) + 1 :]
            at = os.path.dirname(at)  # noqa: PTH120
        return None

    def _look(self, path: str) -> dict[str, Any]:
        """Size and time of the tracked files of a custom node."""
        place = os.path.realpath(path)[len(self._folder) + 1 :]
        names = [name for name, of in self._tracked().items() if of == place]
        return {name: folders.stamp(os.path.join(self._folder, name)) for name in names}  # noqa: PTH118

    def _begin(self, path: str) -> None:
        if os.path.realpath(os.path.dirname(path)) == self._nodes.folder:  # noqa: PTH120
            self._installed()
            self._before[path] = (folders.head(path), self._packages, self._nodes.look())

    def _end(self, path: str) -> None:
        if (before := self._before.pop(path, None)) is None:
            return
        head, self._packages, nodes = before
        pack = os.path.basename(path)  # noqa: PTH119
        now = folders.head(path)
        if now != head:
            self._tell(pack, head=now or "", place=f"ComfyUI/{NODES}/{pack}")
        installer, self._installer = self._installer, pack
        self._installed()
        self._installer = installer
        if new_nodes := self._nodes.look() - nodes:
            self._tell(pack, nodes=sorted(new_nodes))
        stamps = self._stamps.pop(path, None) or {}
        if now != head:
            return
        now_stamps = self._look(path) if stamps else {}
        for name, stamp in stamps.items():
            if now_stamps[name] != stamp:
                self._tell(pack, file=name)


def _lines(file: str) -> Iterator[str]:
    with contextlib.suppress(OSError, ValueError):
        yield from folders.read(file).splitlines()


def attach() -> None:
    """Listen to this process from here on."""
    changes = Changes(os.environ[FILE])
    report.observer = changes
    sys.addaudithook(changes.hear())
