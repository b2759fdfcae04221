"""What only the build's validation asks of the process, besides the load report.

- Which node classes of custom nodes `/object_info` can describe; it leaves out the others.
- Where a workflow asks for it: the same of ComfyUI's own, the inputs of each that are chosen from a
  list, as models are, and the folders of JavaScript that custom nodes give to the page.
- What each custom node asked for that exists at run time only: variables without a value here, a
  `.env` that isn't written yet, a GPU. A failure without them proves nothing.
- A fixed port that a running instance holds: another port is good enough for an import.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from . import hooks, report

VARIABLE = "COMFY_MACHINE_PROOF"
"""The variable with a comma-separated list: variables without a value, and `.env` if one is to be
written; "-": none."""
DESCRIBE = "COMFY_MACHINE_DESCRIBE"
"""The variable that asks for all node classes."""
DOTENV = ".env"


def attach() -> None:
    later = frozenset(os.environ[VARIABLE].split(","))
    report.is_listed = is_listed
    if DESCRIBE in os.environ:
        report.described = described
    _watch_variables(later)
    if DOTENV in later:
        _watch_dotenv()
    _share_ports()
    hooks.after_import("torch.cuda", _watch_cuda)


def is_listed(node: Any) -> bool:
    """Whether /object_info describes a class. ComfyUI's server.py leaves out classes that raise, as
    many do that are written for a newer ComfyUI (seen with KJNodes on 0.3.64)."""
    try:
        if describe := getattr(node, "GET_NODE_INFO_V1", None):
            describe()
        else:
            node.INPUT_TYPES().items()
            len(node.RETURN_TYPES)
    except Exception:
        return False
    return True


def described(nodes: Any) -> dict[str, Any]:
    found: dict[str, list[str]] = {}
    for name, node in list(nodes.NODE_CLASS_MAPPINGS.items()):
        # Which inputs are lists is asked, not what is in them: a folder of models may be large.
        with _without_files():
            listed = is_listed(node)
            choices = _choices(node) if listed else []
        if not listed and is_listed(node):
            listed, choices = True, _choices(node)
        if listed:
            found[str(name)] = choices
    web = getattr(nodes, "EXTENSION_WEB_DIRS", {})
    return {"choices": found, "web": sorted({_below(str(folder)) for folder in web.values()})}


@contextlib.contextmanager
def _without_files() -> Iterator[None]:
    """While it lasts, ComfyUI finds no model, and looks for none."""
    paths = sys.modules.get("folder_paths")
    real = getattr(paths, "get_filename_list", None)
    if paths is None or real is None:
        yield
        return
    paths.get_filename_list = lambda *_: []  # type: ignore[attr-defined]
    try:
        yield
    finally:
        paths.get_filename_list = real  # type: ignore[attr-defined]


def _below(folder: str) -> str:
    """Relative to ComfyUI where it lies there: a generation is named by others."""
    here = os.getcwd() + "/"  # noqa: PTH109
    return folder[len(here) :] if folder.startswith(here) else folder


def _choices(node: Any) -> list[str]:
    """The inputs that are chosen from a list."""
    try:
        about = getattr(node, "GET_NODE_INFO_V1", None)
        inputs = about()["input"] if about else node.INPUT_TYPES()
        return [
            str(name)
            for kind in ("required", "optional")
            for name, spec in (inputs.get(kind) or {}).items()
            if isinstance(spec[0], (list, tuple)) or spec[0] == "COMBO"
        ]
    except Exception:
        return []


def _ask(name: str) -> None:
    if load := report.current():
        load.ask(name)


def _watch_dotenv() -> None:
    """Note who opens a missing `.env`, or asks whether it exists."""
    stat = os.stat

    def hear(path: Any) -> None:
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).endswith(DOTENV):
            try:
                stat(path)
            except OSError:
                _ask(DOTENV)

    @functools.wraps(stat)
    def asked(path: Any, *arguments: Any, **named: Any) -> os.stat_result:
        hear(path)
        return stat(path, *arguments, **named)

    os.stat = asked
    sys.addaudithook(lambda event, arguments: hear(arguments[0]) if event == "open" else None)


def _watch_variables(later: frozenset[str]) -> None:
    """Note who reads a variable; `os.environ[…]`, `.get` and `in` all call `__getitem__`."""
    kind = type(os.environ)
    get = kind.__getitem__

    @functools.wraps(get)
    def getitem(self: Any, name: Any) -> Any:
        try:
            return get(self, name)
        except KeyError:
            if name in later:
                _ask(name)
            raise

    kind.__getitem__ = getitem  # type: ignore[method-assign]


def _watch_cuda(cuda: ModuleType) -> None:
    """Note who asks for a GPU where there is none."""
    available = cuda.is_available

    @functools.wraps(available)
    def is_available() -> bool:
        found = bool(available())
        if not found:
            _ask("gpu")
        return found

    cuda.is_available = is_available  # type: ignore[attr-defined]


def _share_ports() -> None:
    bind = socket.socket.bind

    @functools.wraps(bind)
    def bind_somewhere(self: socket.socket, address: Any) -> None:
        try:
            bind(self, address)
        except OSError as error:
            inet = self.family in (socket.AF_INET, socket.AF_INET6)
            if error.errno != errno.EADDRINUSE or not inet:
                raise
            bind(self, (address[0], 0, *address[2:]))

    socket.socket.bind = bind_somewhere  # type: ignore
