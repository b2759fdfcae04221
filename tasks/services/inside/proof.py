"""What only the build's validation asks of the process, besides the load report.

- Which node classes `/object_info` can describe; it leaves out the others. Of each, ComfyUI's own
  included, the inputs that are chosen from a list, as models are.
- The folders of JavaScript that custom nodes give to the page.
- What each custom node asked for that exists at run time only: variables without a value here, a
  `.env` that isn't written yet, a GPU. A failure without them proves nothing.
- A fixed port that a running instance holds: another port is good enough for an import.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
import sys
from types import ModuleType
from typing import Any

from . import hooks, report

VARIABLE = "COMFY_MACHINE_PROOF"
"""The variable with a comma-separated list: variables without a value, and `.env` if one is to be
written; "-": none."""
DOTENV = ".env"


def attach() -> None:
    later = frozenset(os.environ[VARIABLE].split(","))
    report.is_listed = is_listed
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
    every = list(nodes.NODE_CLASS_MAPPINGS.items())
    web = getattr(nodes, "EXTENSION_WEB_DIRS", {})
    return {
        "choices": {str(name): _choices(node) for name, node in every if is_listed(node)},
        "web": sorted({_below(str(folder)) for folder in web.values()}),
    }


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
