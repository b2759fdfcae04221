"""A file that isn't on this machine: it is read in pieces, as they are needed."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3


class Absent(Exception):  # noqa: N818  reads as what is the case
    """Whoever should have the file hasn't, or has another by now."""


class Silent(Exception):  # noqa: N818  reads as what is the case
    """Whoever should have the file doesn't answer."""


@dataclass(frozen=True)
class DistantFile:
    """`read` gets the first byte and the one after the last. It raises Absent and Silent."""

    size: int
    read: Callable[[int, int], AsyncIterator[bytes]]

    async def keep(self, folder: Path) -> tuple[Path, str]:
        """Write it to a file in this folder, which is the caller's to move or remove; its blake3.
        Raises Absent, Silent, and OSError."""
        part, total = folder / f"{secrets.token_hex(8)}.part", blake3()
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        try:
            with part.open("xb") as file:
                async for piece in self.read(0, self.size):
                    await asyncio.to_thread(file.write, piece)
                    total.update(piece)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return part, total.hexdigest()
