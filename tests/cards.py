"""GPUs that are only said to be there: scenarios for tests/nvml/pynvml.py."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent / "nvml"
GIB = 1024**3

LOST, RESET_REQUIRED, NO_PERMISSION, NOT_SUPPORTED = 15, 16, 4, 3
DRIVER_NOT_LOADED, VERSION_MISMATCH, UNKNOWN = 9, 18, 999
PROHIBITED, EXCLUSIVE_PROCESS = 2, 3


@dataclass(frozen=True)
class Card:
    """One GPU as NVML is to show it; memory in bytes, codes as in nvml.h."""

    uuid: str = "GPU-00000000-0000-0000-0000-000000000000"
    name: str = "NVIDIA H100 80GB HBM3"
    total: int = 80 * GIB
    used: int = 0
    reserved: int = GIB // 2
    compute: Sequence[tuple[int, int | None]] = ()
    """pid and bytes, None where the driver won't tell."""
    graphics: Sequence[tuple[int, int | None]] = ()
    mode: int = 0
    mig: int | None = 0
    """None: a model that has no such thing."""
    xids: Sequence[int] = ()
    """Errors that it reports, each once."""
    errors: dict[str, int] = field(default_factory=dict)
    """Function → the code that it ends with."""


def card(number: int, **others: object) -> Card:
    """A card with a UUID made of a number."""
    return Card(uuid=uuid(number), **others)  # type: ignore[arg-type]


def uuid(number: int) -> str:
    return f"GPU-{number:08x}-0000-4000-8000-000000000000"


def lost(number: int) -> Card:
    return card(number, errors={"nvmlDeviceGetHandleByIndex_v2": LOST})


@dataclass(frozen=True)
class Nvml:
    """A scenario on disk, and the environment in which pynvml finds it."""

    file: Path

    @property
    def env(self) -> dict[str, str]:
        return {"PYTHONPATH": str(FOLDER), "NVML_SCENARIO": str(self.file)}

    def show(
        self,
        *cards: Card,
        init: int = 0,
        library: bool = True,
        lacks: Iterable[str] = (),
    ) -> Nvml:
        """From now on NVML shows these; it ends nvmlInit with `init`, lacks these functions."""
        shown = [asdict(each) for each in cards]
        self.file.write_text(
            json.dumps({"library": library, "init": init, "lacks": list(lacks), "gpus": shown})
        )
        return self

    def calls(self) -> list[str]:
        """What was asked since the last time that this was."""
        log = self.file.with_name(f"{self.file.name}.calls")
        found = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return found
