"""Which build of torch: machine.yaml's, else the lock's, else the driver's, else PyPI's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_machine.engine.run import Run
from comfy_machine.host.system import gpu
from comfy_machine.lock import packages
from comfy_machine.spec import load
from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.lock.test_stage import lock_of
from tests.rig import SIMULATOR, Rig
from tests.wheels import wheel

pytestmark = pytest.mark.afresh

NOWHERE = "http://127.0.0.1:9/simple"


def locked(rig: Rig, torch: str) -> None:
    """Have the lock say that this build was chosen when it was made."""
    content = lock_of(rig) if rig.lock_file.exists() else _empty()
    content["python"]["asked"]["torch"] = torch
    rig.lock_file.write_text(json.dumps(content))


def _empty() -> dict[str, Any]:
    asked = {"python": "3.11", "platform": "linux", "requirements": {}}
    return {"python": {"asked": asked, "packages": {}}}


@pytest.mark.parametrize(
    ("driver", "cpu_only", "in_lock", "chosen"),
    [
        (False, False, None, "pypi"),  # an image that is built without a GPU and runs with one
        (True, False, None, "auto"),
        (False, True, None, "cpu"),
        (True, True, None, "cpu"),
        (False, False, "cu128", "cu128"),
        (True, False, "cu126", "cu126"),
        (False, False, "cpu", "pypi"),
        (True, False, "cpu", "auto"),
        (False, True, "cpu", "cpu"),
        (False, True, "pypi", "pypi"),
        (True, True, "cu128", "cu128"),
        (False, False, "none", "pypi"),
        (False, True, "preinstalled", "cpu"),
    ],
)
def test_auto_is_the_locks_choice_if_that_is_of_use_here(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    driver: bool,
    cpu_only: bool,
    in_lock: str | None,
    chosen: str,
) -> None:
    monkeypatch.setattr(gpu, "driver_present", lambda: driver)
    instances = {"cpu_only": cpu_only}
    rig = Rig(tmp_path, {"workspace": "ws", "comfyui": {}, "instances": instances})
    rig.write()
    if in_lock:
        locked(rig, in_lock)
    assert packages.torch_build(Run(load(rig.file, {}))) == chosen


def test_what_machine_yaml_says_counts_more_than_the_lock(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {"workspace": "ws", "comfyui": {}, "python": {"torch": "cu128"}})
    rig.write()
    locked(rig, "cpu")
    assert packages.torch_build(Run(load(rig.file, {"COMFYUI_CPU_ONLY": "true"}))) == "cu128"


def test_update_of_torch_chooses_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "driver_present", lambda: True)
    rig = Rig(tmp_path, {"workspace": "ws", "comfyui": {}})
    rig.write()
    locked(rig, "cu118")
    for updates, chosen in (({"torch"}, "auto"), (set(), "auto"), ({"numpy"}, "cu118")):
        run = Run(load(rig.file, {}), updates=frozenset(updates))
        assert packages.torch_build(run) == chosen


def test_cpu_only_from_the_environment_keeps_the_lock_and_resolves_nothing(
    machine: MachineMaker, tmp_path: Path
) -> None:
    rig = machine(python={"torch": "auto"}, instances={"cpu_only": False})
    rig.doit("lock")
    locked(rig, "pypi")
    rig.doit("lock")
    before = rig.lock_file.read_text()
    rig.env |= {"UV_DEFAULT_INDEX": NOWHERE, "UV_CACHE_DIR": str(tmp_path / "empty")}
    for how in ((), ("locked=1",)):
        assert rig.doit("lock", *how, COMFYUI_CPU_ONLY="true").moves == set()
    assert rig.lock_file.read_text() == before


def test_another_choice_of_torch_is_another_set(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    wheel(tmp_path / "links", "torch", "0.0.1")
    comfyui = forge.copy("ComfyUI", SIMULATOR)
    comfyui.commit({"requirements.txt": "PyYAML\ntorch<0.1\n"})
    python = {"torch": "pypi", "find_links": [str(tmp_path / "links")]}
    rig = machine(comfyui={"repo": comfyui.url}, python=python)
    rig.doit("lock")
    assert "torch" in lock_of(rig)["python"]["packages"]
    # As if it had been the CPU build: its index is far away.
    locked(rig, "cpu")
    rig.spec["python"] = {**python, "torch": "cpu"}
    assert rig.doit("lock").moves == set()
    rig.spec["python"] = {**python, "torch": "none"}
    said = "machine.lock is for torch cpu, not none"
    assert said in rig.doit("lock", "locked=1", code=1).output
    assert rig.doit("lock").moves == {"- torch 0.0.1"}
    assert lock_of(rig)["python"]["asked"]["torch"] == "none"
    assert "torch" not in lock_of(rig)["python"]["packages"]
    rig.spec["python"] = python
    assert rig.doit("lock").moves == {"+ torch 0.0.1"}
    another = rig.lock_file.read_text().replace('"python": "3.', '"python": "2.', 1)
    rig.lock_file.write_text(another)
    said = rig.doit("lock", "locked=1", code=1).output
    assert "machine.lock is for python 2." in said
    assert "make image-lock" in said
