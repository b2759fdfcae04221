"""What only the build's proof asks of the process, beside the load report.

- Which node classes can be told: `/object_info` leaves out those that can't.
- Which of the variables that have no value here each custom node asked for, and whether it asked
  for a GPU: its failure then says nothing of the machine that has them.
- A fixed port that is taken, by an instance that runs: another one serves for an import.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
from types import ModuleType
from typing import Any

from . import hooks, report

VARIABLE = "COMFY_MACHINE_PROOF"
"""The names of the variables without a value, with commas; "-" when there are none."""


def attach() -> None:
    unset = frozenset(os.environ[VARIABLE].split(","))
    report.is_told = is_told
    _watch_variables(unset)
    _share_ports()
    hooks.after_import("torch.cuda", _watch_cuda)


def is_told(node: Any) -> bool:
    """Whether /object_info has a class. Not so one of which ComfyUI can't tell (its server.py), as
    many are that were written for a newer one (seen with KJNodes on 0.3.64)."""
    try:
        if tell := getattr(node, "GET_NODE_INFO_V1", None):
            tell()
        else:
            node.INPUT_TYPES().items()
            len(node.RETURN_TYPES)
    except Exception:
        return False
    return True


def _ask(name: str) -> None:
    if load := report.current():
        load.asked.add(name)


def _watch_variables(unset: frozenset[str]) -> None:
    """`os.environ[…]`, `.get` and `in` all come here."""
    kind = type(os.environ)
    get = kind.__getitem__

    @functools.wraps(get)
    def getitem(self: Any, name: Any) -> Any:
        try:
            return get(self, name)
        except KeyError:
            if name in unset:
                _ask(name)
            raise

    kind.__getitem__ = getitem  # type: ignore[method-assign]


def _watch_cuda(cuda: ModuleType) -> None:
    """The name stands for a GPU that isn't there."""
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
