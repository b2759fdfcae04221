"""The load report: what became of each custom node, told by the process that loads them.

One JSON line an event, in a file named by pid and start time and written as it grows: whatever
ends the process, an entry that was begun and not ended tells where it was. `host/load_report.py`
reads it. Wrapped are `nodes.load_custom_node` and `nodes.init_extra_nodes` (the same in ComfyUI
0.3.64 to 0.33.0) and `prestartup_script.py` files. Exceptions come from `sys.exc_info()` at the
moment when ComfyUI complains: what a custom node does to logging changes nothing.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib.util
import inspect
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Protocol

from . import errors, hooks


class Observer(Protocol):
    """It never raises."""

    def begin(self, path: str) -> None: ...
    def end(self, path: str) -> None: ...


is_told: Callable[[Any], bool] | None = None
"""Leaves node classes out of the report; None: all are in it. The proof sets it."""
observer: Observer | None = None
"""Told when a custom node begins to load, and when it has; `changes` sets it."""
FOLDER = "COMFY_MACHINE_REPORT"
"""The variable with the folder of the reports."""
KEPT = 4
"""Reports of earlier processes that stay beside this one."""
COMPLAINTS = frozenset({"warning", "error", "exception", "critical"})
PRESTARTUP = "prestartup_script.py"


class Load:
    """A custom node, or an extra of ComfyUI's, while it is loaded."""

    def __init__(self, path: str, tell: Callable[..., None]) -> None:
        self.path = path
        self._tell = tell
        self.begin = time.monotonic()
        self.threads = set(threading.enumerate())
        self.heard: BaseException | None = None
        """What ComfyUI was complaining of, last."""
        self._asked: set[str] = set()

    def ask(self, name: str) -> None:
        """It asked for a variable, a file or a "gpu" that isn't there. Told at once: it may end
        the process."""
        if name not in self._asked:
            self._asked.add(name)
            self._tell(event="asked", path=self.path, name=name)


_load: contextvars.ContextVar[Load | None] = contextvars.ContextVar("load", default=None)


def current() -> Load | None:
    """What is loaded at this moment, in this context."""
    return _load.get()


class Report:
    """The file. What fails in here ends the report, and nothing else."""

    def __init__(self, folder: str) -> None:
        self._pid = os.getpid()
        name = f"{self._pid}-{_start_time()}.jsonl"
        _forget(folder, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(os.path.join(folder, name), flags, 0o600)  # noqa: PTH118
        self._known: set[str] = set()
        self.tell(event="start", argv=sys.argv[:64] if hasattr(sys, "argv") else [])

    def tell(self, **entry: Any) -> None:
        # A fork has all of this, and is another process.
        if self._file >= 0 and os.getpid() == self._pid:
            try:
                os.write(self._file, json.dumps(entry, default=str).encode() + b"\n")
            except (OSError, ValueError):
                # Half a report would put the blame on what was being loaded: better none.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, 0)
                self._file = -1

    def fault(self) -> None:
        """An error of our own: nothing more is told. It must not raise, whatever is broken."""
        with contextlib.suppress(Exception):
            self.tell(event="fault", trace=traceback.format_exc())
        self._file = -1

    def begin(self, path: str, phase: str, parent: str) -> Load | None:
        """None for what is loaded again, or by another one while that is loaded."""
        key = f"{phase}:{path}"
        if key in self._known or _load.get() is not None:
            return None
        self._known.add(key)
        self.tell(event="begin", path=path, phase=phase, parent=parent)
        if observer is not None:
            observer.begin(path)
        return Load(path, self.tell)

    def end(self, load: Load, phase: str, ok: bool, **more: Any) -> None:
        seconds = round(time.monotonic() - load.begin, 3)
        if observer is not None:
            observer.end(load.path)
        left = [each for each in threading.enumerate() if each not in load.threads]
        self.tell(
            event="end",
            path=load.path,
            phase=phase,
            ok=ok,
            seconds=seconds,
            error=None if ok or load.heard is None else errors.describe(load.heard),
            threads=[each.name for each in left if not each.daemon][:8],
            **more,
        )


def guarded(report: Report, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what is ours; None when it fails."""
    try:
        return function(*arguments)
    except Exception:
        report.fault()
        return None


def attach() -> None:
    """Write the report of this process into the folder that the variable names."""
    report = Report(os.environ[FOLDER])
    _watch_prestartup(report)
    hooks.after_import("nodes", functools.partial(_wrap, report))


def _watch_prestartup(report: Report) -> None:
    """main.py runs each script in a function of its own, which can't be reached, and catches what
    that raises."""
    find = importlib.util.spec_from_file_location

    @functools.wraps(find)
    def spec_from_file_location(name: str, location: Any = None, **named: Any) -> Any:
        spec = find(name, location, **named)
        caller = sys._getframe(1).f_globals.get("__name__")
        script = os.path.basename(str(location)) == PRESTARTUP  # noqa: PTH119
        if script and caller == "__main__" and spec is not None and spec.loader is not None:
            guarded(report, _watch_script, report, spec.loader, os.path.dirname(str(location)))  # noqa: PTH120
        return spec

    importlib.util.spec_from_file_location = spec_from_file_location


def _watch_script(report: Report, loader: Any, path: str) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        load = guarded(report, report.begin, path, "prestartup", "custom_nodes")
        with _during(load):
            try:
                execute(module)
            except Exception as error:
                if load is not None:
                    load.heard = error
                    guarded(report, report.end, load, "prestartup", False)
                raise
            if load is not None:
                guarded(report, report.end, load, "prestartup", True)

    loader.exec_module = exec_module


@contextlib.contextmanager
def _during(load: Load | None) -> Iterator[None]:
    """While this lasts, `current()` is this load."""
    token = _load.set(load) if load is not None else None
    try:
        yield
    finally:
        if token is not None:
            _load.reset(token)


class _Ear:
    """ComfyUI's `logging`, as `nodes` sees it: hears what is being complained of."""

    def __init__(self, logging: Any) -> None:
        self._logging = logging

    def __getattr__(self, name: str) -> Any:
        if name in COMPLAINTS and (load := _load.get()) is not None:
            load.heard = sys.exc_info()[1]
        return getattr(self._logging, name)


def _wrap(report: Report, nodes: Any) -> None:
    """Have ComfyUI's loader tell. A module that only has its name is left alone."""
    load, every = getattr(nodes, "load_custom_node", None), getattr(nodes, "init_extra_nodes", None)
    if not inspect.iscoroutinefunction(load):
        return
    nodes.load_custom_node = _telling(report, nodes, load)
    whole = inspect.iscoroutinefunction(every)
    if whole:
        nodes.init_extra_nodes = _finishing(report, nodes, every)
    report.tell(event="attached", whole=whole)


def _listen(nodes: Any) -> None:
    """Each time anew: a custom node may have put another `logging` there."""
    if not isinstance(nodes.logging, _Ear):
        nodes.logging = _Ear(nodes.logging)


def _telling(report: Report, nodes: Any, load: Any) -> Any:
    @functools.wraps(load)
    async def load_custom_node(module_path: str, *arguments: Any, **named: Any) -> Any:
        parent = named.get("module_parent") or (arguments[1:2] or ("custom_nodes",))[0]
        begun = guarded(report, report.begin, str(module_path), "import", str(parent))
        guarded(report, _listen, nodes)
        with _during(begun):
            ok = await load(module_path, *arguments, **named)
            if begun is not None:
                guarded(report, _ended, report, begun, bool(ok))
            return ok

    return load_custom_node


def _ended(report: Report, load: Load, ok: bool) -> None:
    report.end(load, "import", ok, empty=not ok and load.heard is None and _is_empty(load.path))


def _is_empty(path: str) -> bool:
    """Whether a module was executed that has nothing ComfyUI looks for."""
    name = os.path.splitext(path)[0] if os.path.isfile(path) else path.replace(".", "_x_")  # noqa: PTH113, PTH122
    module = sys.modules.get(name)
    return module is not None and (
        getattr(module, "NODE_CLASS_MAPPINGS", None) is None
        and not hasattr(module, "comfy_entrypoint")
    )


def _finishing(report: Report, nodes: Any, every: Any) -> Any:
    begin = time.monotonic()

    @functools.wraps(every)
    async def init_extra_nodes(*arguments: Any, **named: Any) -> Any:
        result = await every(*arguments, **named)
        guarded(report, _loaded, report, nodes, begin)
        return result

    return init_extra_nodes


def _loaded(report: Report, nodes: Any, begin: float) -> None:
    """All is loaded: the node classes that each custom node gave."""
    found: dict[str, list[str]] = {}
    for name, node in list(nodes.NODE_CLASS_MAPPINGS.items()):
        home, _, owner = str(getattr(node, "RELATIVE_PYTHON_MODULE", "")).partition(".")
        if home == "custom_nodes" and owner and (is_told is None or is_told(node)):
            found.setdefault(owner, []).append(str(name))
    report.tell(event="loaded", seconds=round(time.monotonic() - begin, 3), classes=found)


def _start_time() -> str:
    """When this process began, in ticks since the boot, as the kernel has it: an exec keeps it."""
    with open("/proc/self/stat", "rb") as file:  # noqa: PTH123
        return file.read().rpartition(b")")[2].split()[19].decode()


def _forget(folder: str, name: str) -> None:
    """Remove all but the newest reports of earlier processes."""
    os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    others = [each for each in os.scandir(folder) if each.name.endswith(".jsonl")]
    others = [each for each in others if each.name != name]
    others.sort(key=lambda each: each.stat().st_mtime, reverse=True)
    for each in others[KEPT:]:
        os.unlink(each.path)  # noqa: PTH108
