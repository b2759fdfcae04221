"""What a process changes in the generation that it runs from, recorded by the process itself.

Custom nodes rewrite their tracked files, move their checkout and install packages, at import or
later. From outside that looks like a person's edit. So each change becomes one JSON line in a file
beside the generation, which all its processes append to and
`tasks/host/generations/reported_changes.py` reads:

- `file`: a tracked file was opened for writing, replaced or removed, or a child of a custom
  node's import changed it
- `head`: the commit that a checkout was moved to while its custom node was loaded
- `git`: a checkout in which a child process that may move it was started
- `gone`, `new`: names in site-packages; `nodes`: names that appeared in custom_nodes

`pack` is the custom node that made the change; null: unknown.
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
"""The variable that names the file."""
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
"""Audit event → the indexes of its path arguments, each with that of its folder descriptor."""
CHILDREN = frozenset({"subprocess.Popen", "os.system", "os.posix_spawn", "os.spawn", "os.fork"})
MOST_SEEN = 4096
"""Paths that are remembered, so that each is examined once."""


class Changes:
    """Records changes. An error of ours ends the recording and nothing else."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._folder = os.path.realpath(file.removesuffix(ENDING))
        self._recorded = set(_lines(file))
        self._seen: set[str] = set()
        self._is_on = True
        self._tracked_files: dict[str, str] | None = None
        version = "python{}.{}".format(*sys.version_info)
        self._site = folders.Names(os.path.join(sys.prefix, "lib", version, "site-packages"))  # noqa: PTH118
        self._nodes = folders.Names(os.path.join(self._folder, "ComfyUI", NODES))  # noqa: PTH118
        self._packages = self._site.look()
        self._installer: str | None = None
        """The custom node that last started pip or uv, which may end at any time."""
        self._at_begin: dict[str, Any] = {}
        self._stamps: dict[str, dict[str, Any]] = {}

    def hook(self) -> Callable[[str, tuple[Any, ...]], None]:
        """The audit hook. It must not raise: that would end the audited operation. Most events are
        irrelevant, so these cost one look-up."""
        handlers: dict[str, Callable[[tuple[Any, ...]], None]] = dict.fromkeys(
            CHILDREN, functools.partial(self._safely, self._starting)
        )
        handlers["open"] = self._opened
        for event, places in PATHS.items():
            handlers[event] = functools.partial(self._safely, self._change, places)
        handler_of = handlers.get

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            handler = handler_of(event)
            if handler is not None:
                handler(arguments)

        return hook

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
        if not self._is_on:
            return
        try:
            function(*arguments)
        except Exception:
            self._is_on = False
            with contextlib.suppress(Exception):
                traceback.print_exc()

    def _record(self, pack: str | None, **entry: Any) -> None:
        line = json.dumps({"pack": pack, **entry}, sort_keys=True)
        if line in self._recorded:
            return
        self._recorded.add(line)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        file = os.open(self._file, flags, 0o644)
        try:
            os.write(file, line.encode() + b"\n")
        finally:
            os.close(file)

    def _record_packages(self) -> None:
        """Record the packages that the installer added and removed since the last call."""
        previous = self._packages
        self._packages = current = self._site.look()
        if current != previous and self._installer is not None:
            new = sorted(name for name in current - previous if name.endswith(".dist-info"))
            self._record(self._installer, gone=sorted(previous - current), new=new)

    def _touch(self, path: Any, base: Any, follow: bool) -> None:
        """A path is about to be written, replaced or removed."""
        if self._installer is not None:
            self._record_packages()
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
        if len(self._seen) >= MOST_SEEN:
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
            self._record(self._who(), file=inside)
        elif os.path.isdir(real):  # noqa: PTH112
            for name in [name for name in tracked if name.startswith(f"{inside}/")]:
                self._record(self._who(), file=name)

    def _who(self) -> str | None:
        """The custom node that is being loaded, else the innermost one on the call stack."""
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
        if self._tracked_files is None:
            tracked: dict[str, str] = {}
            with contextlib.suppress(OSError, ValueError, AttributeError):
                name = f"{self._folder}.files.json"
                with open(name, encoding="utf-8") as file:  # noqa: PTH123
                    for place, stamps in json.load(file).items():
                        tracked |= {f"{place}/{each}": place for each in stamps}
            self._tracked_files = tracked
        return self._tracked_files

    def _starting(self, arguments: tuple[Any, ...]) -> None:
        """A child process is about to be started."""
        load = report.current()
        if load is not None and load.path in self._at_begin and load.path not in self._stamps:
            self._stamps[load.path] = self._look(load.path)
        words, folder = children.command(arguments)
        if children.moves(words) and (place := self._checkout(folder)):
            self._record(self._who(), git=place)
        if children.installs(words):
            self._installer = self._who()
            self._record_packages()

    def _checkout(self, folder: str) -> str | None:
        """The checkout that a folder lies in, relative to the generation."""
        at = os.path.realpath(folder)
        while at.startswith(f"{self._folder}/"):
            if os.path.lexists(os.path.join(at, ".git")):  # noqa: PTH118
                return at[len(self._folder) + 1 :]
            at = os.path.dirname(at)  # noqa: PTH120
        return None

    def _look(self, path: str) -> dict[str, Any]:
        """Size and mtime of a custom node's tracked files."""
        place = os.path.realpath(path)[len(self._folder) + 1 :]
        names = [name for name, checkout in self._tracked().items() if checkout == place]
        return {name: folders.stamp(os.path.join(self._folder, name)) for name in names}  # noqa: PTH118

    def _begin(self, path: str) -> None:
        if os.path.realpath(os.path.dirname(path)) == self._nodes.folder:  # noqa: PTH120
            self._record_packages()
            self._at_begin[path] = (folders.head(path), self._packages, self._nodes.look())

    def _end(self, path: str) -> None:
        if (state := self._at_begin.pop(path, None)) is None:
            return
        head, self._packages, nodes = state
        pack = os.path.basename(path)  # noqa: PTH119
        now = folders.head(path)
        if now != head:
            self._record(pack, head=now or "", place=f"ComfyUI/{NODES}/{pack}")
        installer, self._installer = self._installer, pack
        self._record_packages()
        self._installer = installer
        if new_nodes := self._nodes.look() - nodes:
            self._record(pack, nodes=sorted(new_nodes))
        stamps = self._stamps.pop(path, None) or {}
        if now != head:
            return
        now_stamps = self._look(path) if stamps else {}
        for name, stamp in stamps.items():
            if now_stamps[name] != stamp:
                self._record(pack, file=name)


def _lines(file: str) -> Iterator[str]:
    with contextlib.suppress(OSError, ValueError):
        yield from folders.read_text(file).splitlines()


def attach() -> None:
    """Record this process's changes from now on."""
    changes = Changes(os.environ[FILE])
    report.observer = changes
    sys.addaudithook(changes.hook())
