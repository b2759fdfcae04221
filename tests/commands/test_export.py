"""doit export: what is built, in the formats of ComfyUI-Manager and comfy-cli."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from comfy_machine.imports import snapshots
from comfy_machine.spec.model import COMFYUI_REPO
from tests.conftest import MachineMaker
from tests.forge import Forge, Repository
from tests.model_server import model_server, safetensors
from tests.registry import registry
from tests.rig import SIMULATOR, Rig

WEIGHTS = safetensors(64)
LACKS = "instances, workers or settings of nodes: machine.yaml keeps them"


def printed(rig: Rig, name: str, **env: str) -> str:
    """The document alone, as a pipe gets it."""
    words = rig.command("export", name)
    ended = subprocess.run(
        words, cwd=rig.project, env=rig.environ(env), capture_output=True, text=True, check=True
    )
    assert "machine.yaml keeps them" in ended.stderr
    return ended.stdout


@pytest.fixture
def comfyui(forge: Forge) -> Repository:
    return forge.copy("ComfyUI", SIMULATOR)


@pytest.fixture
def alpha(forge: Forge) -> Repository:
    return forge.node("alpha", {"requirements.txt": "toml==0.10.2\n"})


@pytest.fixture
def rig(machine: MachineMaker, comfyui: Repository, alpha: Repository, tmp_path: Path) -> Rig:
    """ComfyUI comes from where everybody gets it, as far as git can tell."""
    settings = tmp_path / "gitconfig"
    settings.write_text(f'[url "{comfyui.url}"]\n\tinsteadOf = {COMFYUI_REPO}\n')
    rig = machine(comfyui={"repo": COMFYUI_REPO}, custom_nodes=[{"url": alpha.url}])
    rig.env["GIT_CONFIG_GLOBAL"] = str(settings)
    return rig


def test_a_machine_becomes_a_snapshot_of_what_is_built(
    rig: Rig, comfyui: Repository, alpha: Repository
) -> None:
    rig.doit("build")
    built = alpha.git("rev-parse", "HEAD")
    alpha.commit({"later.py": ""})
    file = rig.folder / "snapshot.json"
    said = rig.doit("export", "snapshot", str(file)).output
    assert {*said.splitlines()} == {f"{file} is written", f"snapshot has no models, {LACKS}"}
    snapshot = json.loads(file.read_text())
    assert "toml==0.10.2" in snapshot.pop("pips")
    assert snapshot == {
        "comfyui": comfyui.git("rev-parse", "HEAD"),
        "git_custom_nodes": {alpha.url: {"hash": built, "disabled": False}},
        "cnr_custom_nodes": {},
        "file_custom_nodes": [{"filename": "websocket_image_save.py", "disabled": False}],
    }
    wanted = snapshots.of_snapshot(snapshot)
    assert [(each.url, each.ref) for each in wanted.nodes] == [(alpha.url, built)]
    file.write_text("mine")
    assert "exists, and stays as it is" in rig.doit("export", "snapshot", str(file), code=1).output
    assert file.read_text() == "mine"


def test_comfy_lock_has_the_models_too(rig: Rig, comfyui: Repository) -> None:
    with model_server() as server:
        server.content["/tiny"] = WEIGHTS
        url = f"{server.url}/tiny"
        rig.spec["models"] = {"files": [{"target": "loras/sub/tiny.safetensors", "url": url}]}
        rig.doit("build")
    lock = yaml.safe_load(printed(rig, "comfy-lock"))
    (model,) = lock["models"]
    (found,) = model.pop("hashes")
    assert found == {"type": "SHA256", "hash": hashlib.sha256(WEIGHTS).hexdigest()}
    assert model == {
        "model": "tiny.safetensors", "url": url, "type": "loras",
        "paths": [{"path": "models/loras/sub/tiny.safetensors"}],
    }  # fmt: skip
    assert lock["custom_nodes"]["comfyui"] == comfyui.git("rev-parse", "HEAD")


def test_what_nobody_else_could_get_is_named_and_the_exit_code_says_so(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    mine = forge.node("mine").folder
    shutil.copytree(mine, tmp_path / "local", ignore=shutil.ignore_patterns(".git"))
    scripted = forge.node("scripted")
    weights = tmp_path / "here.safetensors"
    weights.write_bytes(b"weights")
    rig = machine(
        custom_nodes=[{"path": str(tmp_path / "local")}, {"url": scripted.url, "script": "true"}],
        models={"files": [{"target": "loras/a.safetensors", "source": str(weights)}]},
    )
    rig.doit("build")
    by_hand = rig.comfyui / "custom_nodes"
    subprocess.run(["git", "clone", "-q", mine, by_hand / "cloned"], check=True)
    with (by_hand / "cloned" / ".git" / "config").open("a") as config:
        config.write('[remote "origin"]\n\turl = https://me:secret-word@example.com/x\n')
    (by_hand / "one.py").write_text("")
    (by_hand / "unpacked").mkdir()
    (by_hand / "scripted" / "__init__.py").write_text("# edited\n")
    said = rig.doit("export", "snapshot", code=1).output
    assert "secret-word" not in said
    for what in (
        f"ComfyUI is the local folder {SIMULATOR}",
        f"custom node local is the local folder {tmp_path / 'local'}",
        "custom node scripted: its script in machine.yaml",
        "custom node scripted: edits by hand of __init__.py",
        "custom node cloned: the URL holds credentials",
        "custom node one.py is a file of this machine",
        "custom node unpacked is a folder without a repository",
    ):
        assert f"not exported: {what}" in said
    assert "here.safetensors" not in said
    assert str(weights) in rig.doit("export", "comfy-lock", code=1).output


def test_custom_nodes_of_the_registry_keep_their_ids(machine: MachineMaker) -> None:
    with registry() as served:
        served.publish("alpha-pack", "1.2.3")
        rig = machine(custom_nodes=[{"id": "alpha-pack"}], registry={"url": served.url})
        rig.doit("build")
        rig.doit("export", "snapshot", str(rig.folder / "snapshot.json"), code=1)
        snapshot = json.loads((rig.folder / "snapshot.json").read_text())
        assert snapshot["cnr_custom_nodes"] == {"alpha-pack": "1.2.3"}
        assert snapshot["git_custom_nodes"] == {}
        served.publish("alpha-pack", "1.3.0")
        rig.doit("update", "alpha-pack")
    said = rig.doit("export", "snapshot", code=1).output
    assert "not exported: custom node alpha-pack isn't built as locked" in said


def test_nodes_that_do_not_run_are_disabled(rig: Rig, alpha: Repository, forge: Forge) -> None:
    beta = forge.node("beta")
    rig.spec["custom_nodes"].append({"url": beta.url})
    rig.doit("build")
    subprocess.run(
        ["git", "clone", "-q", beta.url, rig.comfyui / "custom_nodes" / "off.disabled"], check=True
    )
    gamma = forge.node("gamma")
    off = rig.comfyui / "custom_nodes" / ".disabled" / "gamma@nightly"
    subprocess.run(["git", "clone", "-q", gamma.url, off], check=True)
    nodes = json.loads(printed(rig, "snapshot", COMFYUI_CUSTOM_NODES="alpha"))["git_custom_nodes"]
    assert {url: each["disabled"] for url, each in nodes.items()} == {
        alpha.url: False, beta.url: True, gamma.url: True,
    }  # fmt: skip


def test_a_fork_of_comfyui_is_named_since_no_format_has_its_address(
    rig: Rig, comfyui: Repository
) -> None:
    rig.spec["comfyui"] = {"repo": comfyui.url}
    rig.doit("build")
    said = rig.doit("export", "snapshot", code=1).output
    assert f"not exported: ComfyUI comes from {comfyui.url}, of which only the commit" in said


def test_a_format_is_needed_and_something_built(rig: Rig) -> None:
    assert "formats: snapshot, comfy-lock" in rig.doit("export", code=3).output
    assert "did you mean snapshot" in rig.doit("export", "snapshoot", code=3).output
    assert "nothing is built yet" in rig.doit("export", "snapshot", code=1).output
