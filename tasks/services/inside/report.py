"""The load report: the process that loads custom nodes records the result of each.

One JSON line per event, written at once, in a file named by pid and start time. If the process
ends, an entry without an end shows what was being loaded. `tasks/host/comfyui/load_report.py` reads
the file. This wraps `nodes.load_custom_node` and `nodes.init_extra_nodes` (the same in ComfyUI
0.3.64 to 0.33.0) and `prestartup_script.py` files. Exceptions come from `sys.exc_info()` when
ComfyUI logs an error, so a custom node that changes logging doesn't matter.
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
    """Its methods never raise."""

    def begin(self, path: str) -> None: ...
    def end(self, path: str) -> None: ...


is_listed: Callable[[Any], bool] | None = None
"""Whether the report includes a node class; None: all. Validation sets it."""
described: Callable[[Any], dict[str, Any]] | None = None
"""What to report besides of ComfyUI's `nodes` when everything is loaded; `proof` sets it."""
observer: Observer | None = None
"""Called when the load of a custom node begins and ends; `changes` sets it."""
FOLDER = "COMFY_MACHINE_REPORT"
"""The variable that names the folder of the reports."""
KEPT = 4
"""Reports of earlier processes that are kept."""
ERROR_METHODS = frozenset({"warning", "error", "exception", "critical"})
PRESTARTUP = "prestartup_script.py"


class Load:
    """A custom node, or one of ComfyUI's extra nodes, while it is loaded."""

    def __init__(self, path: str, tell: Callable[..., None]) -> None:
        self.path = path
        self._tell = tell
        self.begin = time.monotonic()
        self.threads = set(threading.enumerate())
        self.error: BaseException | None = None
        """The last exception that ComfyUI logged."""
        self._asked: set[str] = set()

    def ask(self, name: str) -> None:
        """Report that it asked for a missing variable, file or "gpu"; at once, since it may end the
        process."""
        if name not in self._asked:
            self._asked.add(name)
            self._tell(event="asked", path=self.path, name=name)


_load: contextvars.ContextVar[Load | None] = contextvars.ContextVar("load", default=None)


def current() -> Load | None:
    """What is being loaded, in this context."""
    return _load.get()


class Report:
    """Writes the report. An error of ours ends the report and nothing else."""

    def __init__(self, folder: str) -> None:
        self._pid = os.getpid()
        name = f"{self._pid}-{_start_time()}.jsonl"
        _forget(folder, name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._file = os.open(os.path.join(folder, name), flags, 0o600)  # noqa: PTH118
        self._known: set[str] = set()
        self.tell(event="start", argv=sys.argv[:64] if hasattr(sys, "argv") else [])

    def tell(self, **entry: Any) -> None:
        # A fork inherits this object, but has its own pid.
        if self._file >= 0 and os.getpid() == self._pid:
            try:
                os.write(self._file, json.dumps(entry, default=str).encode() + b"\n")
            except (OSError, ValueError):
                # A truncated report would blame what was being loaded: better no report.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, 0)
                self._file = -1

    def fault(self) -> None:
        """Report an error of ours, and nothing after it. Never raises."""
        with contextlib.suppress(Exception):
            self.tell(event="fault", trace=traceback.format_exc())
        self._file = -1

    def begin(self, path: str, phase: str, parent: str) -> Load | None:
        """None for a second load, or one that happens inside another."""
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
            error=None if ok or load.error is None else errors.describe(load.error),
            threads=[each.name for each in left if not each.daemon][:8],
            **more,
        )


def guarded(report: Report, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call our own function; None if it raises."""
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
    """main.py runs each script in a nested function, which can't be wrapped, and catches its
    exceptions."""
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
                    load.error = error
                    guarded(report, report.end, load, "prestartup", False)
                raise
            if load is not None:
                guarded(report, report.end, load, "prestartup", True)

    loader.exec_module = exec_module


@contextlib.contextmanager
def _during(load: Load | None) -> Iterator[None]:
    """Make `current()` this load during the body."""
    token = _load.set(load) if load is not None else None
    try:
        yield
    finally:
        if token is not None:
            _load.reset(token)


class _LoggingProxy:
    """`logging` in ComfyUI's `nodes` module: remembers the exception that is being logged."""

    def __init__(self, logging: Any) -> None:
        self._logging = logging

    def __getattr__(self, name: str) -> Any:
        if name in ERROR_METHODS and (load := _load.get()) is not None:
            load.error = sys.exc_info()[1]
        return getattr(self._logging, name)


def _wrap(report: Report, nodes: Any) -> None:
    """Wrap ComfyUI's loader. Another module named `nodes` is left alone."""
    load, every = getattr(nodes, "load_custom_node", None), getattr(nodes, "init_extra_nodes", None)
    if not inspect.iscoroutinefunction(load):
        return
    nodes.load_custom_node = _reporting_load(report, nodes, load)
    whole = inspect.iscoroutinefunction(every)
    if whole:
        nodes.init_extra_nodes = _reporting_end(report, nodes, every)
    report.tell(event="attached", whole=whole)


def _watch_logging(nodes: Any) -> None:
    """Called before each load: a custom node may have replaced `logging`."""
    if not isinstance(nodes.logging, _LoggingProxy):
        nodes.logging = _LoggingProxy(nodes.logging)


def _reporting_load(report: Report, nodes: Any, load: Any) -> Any:
    @functools.wraps(load)
    async def load_custom_node(module_path: str, *arguments: Any, **named: Any) -> Any:
        parent = named.get("module_parent") or (arguments[1:2] or ("custom_nodes",))[0]
        begun = guarded(report, report.begin, str(module_path), "import", str(parent))
        guarded(report, _watch_logging, nodes)
        with _during(begun):
            ok = await load(module_path, *arguments, **named)
            if begun is not None:
                guarded(report, _ended, report, begun, bool(ok))
            return ok

    return load_custom_node


def _ended(report: Report, load: Load, ok: bool) -> None:
    report.end(load, "import", ok, empty=not ok and load.error is None and _is_empty(load.path))


def _is_empty(path: str) -> bool:
    """Whether its module was executed and has nothing that ComfyUI looks for."""
    name = os.path.splitext(path)[0] if os.path.isfile(path) else path.replace(".", "_x_")  # noqa: PTH113, PTH122
    module = sys.modules.get(name)
    return module is not None and (
        getattr(module, "NODE_CLASS_MAPPINGS", None) is None
        and not hasattr(module, "comfy_entrypoint")
    )


def _reporting_end(report: Report, nodes: Any, every: Any) -> Any:
    begin = time.monotonic()

    @functools.wraps(every)
    async def init_extra_nodes(*arguments: Any, **named: Any) -> Any:
        result = await every(*arguments, **named)
        guarded(report, _loaded, report, nodes, begin)
        return result

    return init_extra_nodes


def _loaded(report: Report, nodes: Any, begin: float) -> None:
    """Report that everything is loaded, with each custom node's node classes."""
    found: dict[str, list[str]] = {}
    for name, node in list(nodes.NODE_CLASS_MAPPINGS.items()):
        home, _, owner = str(getattr(node, "RELATIVE_PYTHON_MODULE", "")).partition(".")
        if home == "custom_nodes" and owner and (is_listed is None or is_listed(node)):
            found.setdefault(owner, []).append(str(name))
    more = described(nodes) if described is not None else {}
    report.tell(event="loaded", seconds=round(time.monotonic() - begin, 3), classes=found, **more)


def _start_time() -> str:
    """When this process began, in ticks since the boot; exec doesn't change it."""
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
