"""What an instance was started with, from its command line: what machine.yaml asks for may differ.

The command line holds while the exec shim becomes ComfyUI, and until the process ends.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

MAIN = "/ComfyUI/main.py"
"""How the path of ComfyUI's program ends, below its generation."""


@dataclass(frozen=True)
class StartedWith:
    """None: its command line doesn't say."""

    generation: Path | None = None
    listen: str | None = None
    """The address that it listens on."""
    nodes: frozenset[str] | None = None
    """The custom nodes that it was to load; None: all."""


def of(pid: int) -> StartedWith:
    """What a process was started with. Never raises."""
    try:
        content = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return StartedWith()
    return read([os.fsdecode(word) for word in content.split(b"\0")])


def read(words: Sequence[str]) -> StartedWith:
    """What a command line says."""
    programs = [number for number, word in enumerate(words) if word.endswith(MAIN)]
    if not programs:
        return StartedWith()
    options = words[programs[-1] :]
    listen = _values(options, "--listen")
    allowed = _values(options, "--whitelist-custom-nodes")
    return StartedWith(
        generation=Path(options[0]).parents[1],
        listen=listen[0] if listen else None,
        nodes=frozenset(allowed) if "--disable-all-custom-nodes" in options else None,
    )


def _values(options: Sequence[str], name: str) -> list[str]:
    """The words that follow an option, up to the next one."""
    if name not in options:
        return []
    following = options[options.index(name) + 1 :]
    return list(takewhile(lambda word: not word.startswith("-"), filter(None, following)))


def listens_on(pid: int, otherwise: str) -> str:
    """The address that a process listens on; `otherwise` if its command line doesn't say."""
    return of(pid).listen or otherwise
