"""The torch family is imported once per environment; what doesn't import is told, with a cure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_machine.environment import torch_trial
from comfy_machine.host.storage import digest_folders
from comfy_machine.host.system import gpu
from tests.bases import make_base
from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.rig import SIMULATOR, Rig
from tests.wheels import wheel

pytestmark = pytest.mark.afresh

#: As torch.ops.load_library says it of a library that was built for another torch.
OTHERWISE_BROKEN = """
import torch
if torch.__version__ != {fits!r}:
    try:
        raise OSError("/lib/libtorchaudio.so: undefined symbol: _ZN3c1013of_anotherE")
    except OSError as error:
        raise OSError("Could not load this library: /lib/libtorchaudio.so") from error
"""
BROKEN = OTHERWISE_BROKEN.format(fits="none")


def noting(file: Path) -> str:
    """A module that writes down each time that it is imported."""
    return f"open({str(file)!r}, 'a').write('imported\\n')\n"


@pytest.fixture
def links(tmp_path: Path) -> Path:
    """torch 90.2 and 90.3, of which no index has any, each with its torchvision."""
    folder = tmp_path / "links"
    for torch, vision in (("90.2.0", "80.2.0"), ("90.3.0", "80.3.0")):
        wheel(folder, "torch", torch, code=noting(tmp_path / "imports"))
        wheel(folder, "torchvision", vision, (f"torch=={torch}",))
    return folder


@pytest.fixture
def rig(machine: MachineMaker, forge: Forge, links: Path) -> Rig:
    comfyui = forge.copy("ComfyUI", SIMULATOR)
    asked = (SIMULATOR / "requirements.txt").read_text()
    asked += "torch>=90\ntorchvision>=80\ntorchaudio>=90\n"
    comfyui.commit({"requirements.txt": asked})
    python = {"torch": "pypi", "find_links": [str(links)]}
    return machine(comfyui={"repo": comfyui.url}, python=python)


def receipt(rig: Rig) -> dict[str, Any]:
    (file,) = rig.layout.environments.glob("*.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def imports(tmp_path: Path) -> int:
    return len((tmp_path / "imports").read_text().splitlines())


def test_an_environments_torch_is_imported_once(
    rig: Rig, forge: Forge, links: Path, tmp_path: Path
) -> None:
    wheel(links, "torchaudio", "90.2.1", ("torch>=90.2",))
    rig.spec["custom_nodes"] = [{"url": forge.node("alpha").url, "script": "true"}]
    rig.doit("build")
    proved = {"torch": "90.3.0", "torchvision": "80.3.0", "torchaudio": "90.2.1"}
    assert receipt(rig)["family"] == {"imported": proved}
    assert imports(tmp_path) == 1
    assert rig.doit("build").executed == set()
    beta = forge.node("beta")
    rig.spec["custom_nodes"] = [{"url": beta.url}, *rig.spec["custom_nodes"]]
    rig.doit("build")
    assert imports(tmp_path) == 1, "the packages are the same, so is the environment"


def test_a_proof_stands_until_a_package_moves(
    rig: Rig, forge: Forge, links: Path, tmp_path: Path
) -> None:
    rig.spec["python"]["overrides"] = ["torchaudio; python_version < '3'"]
    nodes = rig.spec["custom_nodes"] = [{"url": forge.node("alpha").url}]
    rig.doit("build")
    nodes.append({"url": forge.node("beta", {"requirements.txt": "toml==0.10.2"}).url})
    assert "environment" in rig.doit("build").executed
    assert imports(tmp_path) == 1, "only another package was added"
    assert digest_folders.read(rig.environment)["family"]["imported"]["torch"] == "90.3.0"
    nodes.append({"url": forge.node("gamma", {"requirements.txt": "toml==0.10.1"}).url})
    nodes.pop(1)
    rig.doit("build")
    assert imports(tmp_path) == 2, "toml moved"
    wheel(links, "torchaudio", "90.3.0", ("torch>=90.2",))
    rig.spec["python"]["overrides"] = []
    rig.doit("build")
    assert digest_folders.read(rig.environment)["family"]["imported"]["torchaudio"] == "90.3.0"


def test_an_environment_that_was_made_without_that_is_proved_where_it_is(
    rig: Rig, links: Path, tmp_path: Path
) -> None:
    wheel(links, "torchaudio", "90.3.0")
    rig.doit("build")
    (file,) = rig.layout.environments.glob("*.json")
    before = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in before.items() if k != "family"}))
    assert "import the torch family, once" in rig.doit("plan", code=None).output
    assert rig.doit("build").executed == {"environment"}
    assert json.loads(file.read_text()) == before
    assert imports(tmp_path) == 2


def test_a_member_that_does_not_import_fails_with_its_cause_and_a_set_that_does(
    rig: Rig, links: Path, tmp_path: Path
) -> None:
    code = OTHERWISE_BROKEN.format(fits="90.2.0")
    wheel(links, "torchaudio", "90.2.1", ("torch>=90.2",), code=code)
    rig.spec["python"]["overrides"] = ["packaging==24.1"]
    run = rig.doit("build", code=2)
    assert run.failed == {"environment"}
    assert (
        "torchaudio 90.2.1 doesn't import beside torch 90.3.0 and torchvision 80.3.0: "
        "OSError: /lib/libtorchaudio.so: undefined symbol: _ZN3c1013of_anotherE; "
        "these versions do (tried): python.overrides: "
        "['packaging==24.1', 'torch==90.2.0', 'torchvision==80.2.0', 'torchaudio==90.2.1']"
    ) in run.output
    assert not rig.layout.current.exists()
    assert not (rig.layout.scratch / "trial").exists()
    assert "family" not in receipt(rig), "a failure may be the system's: it is tried again"
    assert rig.doit("build", code=2).failed == {"environment"}
    rig.spec["python"]["overrides"] = ["torch==90.2.0", "torchaudio==90.2.1"]
    rig.doit("build")
    assert rig.packages()["torchvision"] == "80.2.0"
    assert rig.doit("build").executed == set()


def test_where_no_set_imports_those_that_were_tried_are_named(rig: Rig, links: Path) -> None:
    for version in ("90.2.1", "90.3.1"):
        wheel(links, "torchaudio", version, ("torch>=90.2",), code=BROKEN)
    run = rig.doit("build", code=2)
    assert "undefined symbol: _ZN3c1013of_anotherE; these fail too: " in run.output
    tried = "torch 90.2.0, torchvision 80.2.0, torchaudio 90.3.1"
    assert f"{tried}; choose versions that fit with python.overrides" in run.output


def test_a_member_that_ends_the_process_is_named(rig: Rig, links: Path) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n"
    wheel(links, "torchaudio", "90.3.0", code=code)
    run = rig.doit("build", code=2)
    assert "torchaudio 90.3.0 doesn't import beside torch 90.3.0" in run.output
    assert "its process python was ended by SIGSEGV; " in run.output


def test_what_the_driver_brings_is_not_missed_where_there_is_none(
    rig: Rig, links: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "libcuda.so.1: cannot open shared object file: No such file or directory"
    wheel(links, "torchaudio", "90.3.0", code=f"raise ImportError({said!r})\n")
    run = rig.doit("build", code=2)
    assert f"torchvision 80.3.0: ImportError: {said}" in run.output, "a CPU machine never has it"
    rig.spec["instances"]["cpu_only"] = False
    run = rig.doit("build")
    assert "! unknown whether torchaudio imports: it needs libcuda.so.1" in run.output
    assert rig.doit("build").executed == set()
    kept = receipt(rig)
    assert torch_trial.reason_to_import(kept) is None
    monkeypatch.setattr(gpu, "driver_present", lambda: True)
    assert torch_trial.reason_to_import(kept) == (
        "its torch was never imported, since libcuda.so.1 was missing"
    )


def test_a_preinstalled_member_that_does_not_import_fails_too(rig: Rig, tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    base.install("torch", "91.0")
    base.install("torchvision", "81.0", code="raise RuntimeError('operator nms does not exist')\n")
    rig.spec["python"] = {"torch": "preinstalled"}
    rig.program = base.doit(tmp_path / "of-base")
    run = rig.doit("build", code=2)
    said = "torchvision 81.0 doesn't import beside torch 91.0: RuntimeError: operator nms does"
    assert said in run.output
    assert "it is preinstalled: use another Python for .venv" in run.output
