from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_machine.spec import Machine, SpecError, load

Load = Callable[..., Machine]
Lines = Callable[..., list[str]]

MINIMAL = "workspace: ws\ncomfyui: {}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def read(folder: Path) -> Load:
    """Load a machine file of this text, below the two required fields."""

    def read(text: str = "", *, minimal: str = MINIMAL, local: str = "", **environ: str) -> Machine:
        (folder / "machine.yaml").write_text(minimal + text)
        if local:
            (folder / ".env.local").write_text(local)
        return load(folder / "machine.yaml", {"HOME": "/home/me", **environ})

    return read


@pytest.fixture
def lines(read: Load) -> Lines:
    """The lines of the SpecError that a machine file gives; none when it is fine."""

    def lines(text: str = "", **others: str) -> list[str]:
        try:
            read(text, **others)
        except SpecError as error:
            lines = [str(problem) for problem in error.problems]
            return lines if str(error) == "\n".join(lines) else ["str() differs from problems"]
        return []

    return lines
