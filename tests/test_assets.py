"""Assets: off unless machine.yaml wants them, on a ComfyUI of each time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import MachineMaker
from tests.rig import SIMULATOR, Rig


def as_of(time: str, folder: Path) -> dict[str, str]:
    """ComfyUI of a time."""
    shutil.copytree(SIMULATOR, folder)
    module = folder / "simulation" / "flags.py"
    text = module.read_text()
    assert text.count('default="2026"') == 2
    module.write_text(text.replace('default="2026"', f'default="{time}"'))
    return {"path": str(folder)}


def flags(rig: Rig) -> list[str]:
    return [word for word in rig.config()[0]["args"] if word.endswith("-assets")]


def on(rig: Rig) -> bool:
    """Whether they are, by what the instance says of itself."""
    return bool(rig.client().get("/features").get("assets", False))


@pytest.mark.parametrize(
    ("time", "off", "wanted"),
    [
        ("2026", [], ["--enable-assets"]),
        ("later", ["--disable-assets"], ["--enable-assets"]),
    ],
)
def test_they_are_off_until_they_are_wanted(
    machine: MachineMaker, tmp_path: Path, time: str, off: list[str], wanted: list[str]
) -> None:
    rig = machine(comfyui=as_of(time, tmp_path / "ComfyUI"))
    rig.doit()
    assert (flags(rig), on(rig)) == (off, False)
    rig.spec["instances"]["assets"] = True
    assert "assets" not in rig.doit().output
    assert (flags(rig), on(rig)) == (wanted, True)
    assert rig.doit().executed == set()


def test_where_comfyui_has_none_that_is_said(machine: MachineMaker, tmp_path: Path) -> None:
    rig = machine(comfyui=as_of("2025", tmp_path / "ComfyUI"), instances={"assets": True})
    said = rig.doit().output
    assert said.count("instances.assets has no effect: this ComfyUI has no --enable-assets") == 1
    assert flags(rig) == []
    assert rig.healthy()
