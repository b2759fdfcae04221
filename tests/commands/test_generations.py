"""doit generations and rollback: what can be gone back to, told in versions."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from comfy_machine.host.storage import disk, garbage
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.forge import Forge, Repository
from tests.rig import SIMULATOR, Rig

PROJECT = '[project]\nname = "alpha"\nversion = "{}"\n'


def listed(rig: Rig) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(rig.doit("generations", "--json").output)[
        "generations"
    ]
    return found


@pytest.fixture
def alpha(forge: Forge) -> Repository:
    return forge.node("alpha", {"pyproject.toml": PROJECT.format("1.0")})


@pytest.fixture
def beta(forge: Forge) -> Repository:
    """A node that says no version of itself."""
    return forge.node("beta", {"requirements.txt": "toml==0.10.1\n"})


@pytest.fixture
def rig(machine: MachineMaker, alpha: Repository, beta: Repository, forge: Forge) -> Rig:
    """Two good generations: ComfyUI, alpha and beta moved, and gamma is new."""
    beta.git("tag", "v1.0")
    comfyui = forge.copy("ComfyUI", SIMULATOR)
    version = (SIMULATOR / "comfyui_version.py").read_text() + '\n__version__ = "{}"\n'
    comfyui.commit({"comfyui_version.py": version.format("0.3.63")}, tag="v0.3.63")
    rig = machine(
        comfyui={"repo": comfyui.url, "ref": "v0.3.63"},
        custom_nodes=[{"url": alpha.url}, {"url": beta.url, "ref": "v1.0"}],
        retention={"generations": 5},
    )
    rig.doit()
    alpha.commit({"pyproject.toml": PROJECT.format("1.1")})
    beta.commit({"requirements.txt": "toml==0.10.2\n"}, tag="v2.0")
    comfyui.commit({"comfyui_version.py": version.format("0.3.64")}, tag="v0.3.64")
    rig.spec["comfyui"]["ref"] = "v0.3.64"
    rig.spec["custom_nodes"] = [
        {"url": alpha.url, "ref": alpha.git("rev-parse", "HEAD")},
        {"url": beta.url, "ref": "v2.0"},
        {"url": forge.node("gamma").url},
    ]
    rig.doit()
    return rig


@pytest.mark.afresh
def test_generations_and_rollback_tell_versions_and_not_hashes(rig: Rig) -> None:
    until(lambda: not garbage.at_work(rig.layout), 20, "the sweeper's end")
    second, first = listed(rig)
    assert (second["number"], first["number"]) == (2, 1)
    assert second["id"] == rig.comfyui.parent.name
    assert (second["current"], second["running"]) == (True, ["comfyui-gpu0"])
    assert (first["current"], first["running"]) == (False, [])
    assert (second["last_good"], second["selectable"]) == (True, False)
    assert (first["last_good"], first["selectable"]) == (False, True)
    assert second["changes"] == {"comfyui": [], "nodes": [], "packages": []}
    date = rig.comfyui.stat()
    assert first["good_since"] <= second["good_since"] >= date.st_mtime - 1
    assert first["nodes"]["alpha"]["version"] == "1.0"
    changes = first["changes"]
    assert {"name": "alpha", "before": "1.1", "after": "1.0"} in changes["nodes"]
    assert {"name": "beta", "before": "v2.0", "after": "v1.0"} in changes["nodes"]
    gamma = next(each for each in changes["nodes"] if each["name"] == "gamma")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", gamma["before"]), "the day of its commit"
    assert gamma["after"] is None
    assert changes["packages"] == [{"name": "toml", "before": "0.10.2", "after": "0.10.1"}]
    measured = disk.last_measured(rig.layout)
    assert first["size"] == measured.freed_by(rig.layout, first["id"])

    shown = rig.doit("generations").output
    assert first["id"] not in shown
    head, *rest = shown.splitlines()
    assert re.match(
        r"^  2  ComfyUI 0\.3\.64 \(\w{9}\)  current; runs: comfyui-gpu0; last good", head
    )
    assert re.match(r"^  1  ComfyUI 0\.3\.63 \(\w{9}\)  good since .*  [\d.]+ [kM]?B$", rest[0])
    told = [
        "ComfyUI 0.3.64 → 0.3.63",
        "alpha 1.1 → 1.0",
        "beta v2.0 → v1.0",
        f"- gamma {gamma['before']}",
        "1 package",
    ]
    assert [line.strip() for line in rest[1:6]] == told

    completed = rig.doit("completion", "words", COMFY_MACHINE_WORDS="rollback\n\n.").output
    assert completed == f"1\t{', '.join(told)}\n"
    said = rig.doit("rollback", "1").output.splitlines()
    assert said[0] == "going back to generation 1 (ComfyUI 0.3.63):"
    assert [line.strip() for line in said[1:6]] == told
    assert said[-1] == (
        f"back on generation 1 (ComfyUI 0.3.63): {', '.join(told)}; "
        "until machine.yaml changes or doit force=1"
    )
    assert first["id"] not in "\n".join(said)
    second, first = listed(rig)
    assert (first["current"], first["running"]) == (True, ["comfyui-gpu0"])
    assert second["refused"] == {
        "reason": "doit rollback", "by_hand": True, "at": second["refused"]["at"],
    }  # fmt: skip
    assert (second["number"], second["selectable"]) == (2, False), "doit force=1 goes there"
    assert {"name": "alpha", "before": "1.0", "after": "1.1"} in second["changes"]["nodes"]
    assert "left by hand" in rig.doit("generations").output


def test_a_refused_generation_is_listed_with_the_reason_and_without_a_number(
    machine: MachineMaker, alpha: Repository
) -> None:
    rig = machine(custom_nodes=[{"url": alpha.url}])
    assert "no generation yet" in rig.doit("generations").output
    rig.doit()
    assert "nothing to go back to yet" in rig.doit("generations").output
    dies = "import os, sys\nif 'COMFYUI_PORT' in os.environ:\n    sys.exit('no luck')\n"
    rig.spec["custom_nodes"][0]["ref"] = alpha.commit({"prestartup_script.py": dies})
    rig.doit(code=2)
    refused, good = listed(rig)
    assert (refused["number"], good["number"]) == (None, 1)
    assert (good["current"], good["last_good"]) == (True, True)
    assert "no luck" in refused["refused"]["reason"]
    assert (refused["refused"]["by_hand"], refused["selectable"]) == (False, False)
    before, after = (refused["changes"]["nodes"][0][key] for key in ("before", "after"))
    assert before != after, "the same version and the same day: its commits"
    assert before.startswith("1.0 (")
    assert re.search(r"^  –  .*refused: .*no luck", rig.doit("generations").output, re.M)


def test_what_some_process_holds_or_what_is_damaged_is_said(rig: Rig) -> None:
    folder = rig.layout.generations / listed(rig)[1]["id"]
    with subprocess.Popen(["cat"], cwd=folder, stdin=subprocess.PIPE) as shell:
        assert listed(rig)[1]["running"] == [], "no instance"
        shell.kill()
    for config in rig.layout.good(folder.name).glob("gpu*"):
        config.unlink()
    assert listed(rig)[1]["selectable"] is False
    assert "can't be gone back to" in rig.doit("generations").output
    assert "no generation 1 to go back to" in rig.doit("rollback", "1", code=1).output
