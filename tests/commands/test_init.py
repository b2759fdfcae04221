"""doit init: a machine.yaml for what is here, which works as it is written."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import jsonschema
import pytest
import yaml

from comfy_machine.commands.shared.new_machine_file import COMFYUI
from comfy_machine.spec import Machine, load
from tests.cards import DRIVER_NOT_LOADED, Nvml, card
from tests.conftest import MachineMaker
from tests.forge import Forge, Repository
from tests.rig import PROJECT, SIMULATOR
from tests.test_cli import PROGRAM, run


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """An empty folder in a home of its own."""
    folder = tmp_path / "home" / "machine"
    folder.mkdir(parents=True)
    return folder


def init(folder: Path, *words: str, env: Mapping[str, str] | None = None, code: int = 0) -> str:
    ended = subprocess.run(
        [str(PROGRAM), "init", *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder.parent), "LC_ALL": "C.UTF-8"}
        | dict(env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert ended.returncode == code, ended.stdout
    return ended.stdout


def written(folder: Path) -> Machine:
    return load(folder / "machine.yaml", {})


@pytest.fixture
def comfyui(forge: Forge) -> Repository:
    """Where somebody's ComfyUI came from."""
    repository = forge.copy("ComfyUI", SIMULATOR)
    repository.git("tag", "v9.1.0")
    return repository


def clone(repository: Repository, folder: Path) -> Repository:
    subprocess.run(["git", "clone", "--quiet", repository.url, folder], check=True)
    return Repository(folder)


def test_where_nothing_is_found_it_is_ready_for_the_cpu(here: Path) -> None:
    said = init(here)
    assert said.splitlines() == [
        "machine.yaml is written, and machine.schema.json for editors",
        "  No NVIDIA GPU is here.",
        "next: comfy-machine plan says what will be done, comfy-machine does it",
    ]
    machine = written(here)
    assert machine.instances.cpu_only
    assert machine.workspace == here / "workspace"
    assert machine.comfyui.ref == COMFYUI.ref
    assert "directories" in run(here, "list")


def test_without_one_nearby_comfyui_is_that_of_this_projects_own_machine_file(here: Path) -> None:
    init(here)
    ours = load(PROJECT / "machine.yaml", {}).comfyui
    assert (written(here).comfyui.repo, written(here).comfyui.ref) == (ours.repo, ours.ref)


def test_editors_find_the_schema_that_the_file_names_and_the_file_fits_it(here: Path) -> None:
    init(here)
    text = (here / "machine.yaml").read_text()
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert named
    schema = json.loads((here / named[1]).read_text())
    assert schema == json.loads(run(here, "schema"))
    jsonschema.validate(yaml.safe_load(text), schema)


def test_gpus_and_their_driver_are_named(here: Path, nvml: Nvml) -> None:
    nvml.show(card(0), card(1, name="NVIDIA L4"))
    said = init(here, env=nvml.env)
    assert "Found with driver 550.54.15: GPU 0 (NVIDIA H100 80GB HBM3), 80.0 GiB" in said
    text = (here / "machine.yaml").read_text()
    assert "# GPU 1 (NVIDIA L4), 80.0 GiB\n" in text
    assert not written(here).instances.cpu_only


def test_a_driver_that_is_not_there_means_the_cpu_and_is_no_failure(here: Path, nvml: Nvml) -> None:
    nvml.show(init=DRIVER_NOT_LOADED)
    init(here, env=nvml.env)
    assert written(here).instances.cpu_only


@pytest.mark.parametrize("place", [".", "ComfyUI", "../ComfyUI"])
def test_an_existing_comfyui_is_taken_over_with_its_nodes_and_models(
    here: Path, machine: MachineMaker, forge: Forge, comfyui: Repository, place: str
) -> None:
    theirs = here.joinpath(place).resolve()
    if place == ".":
        here.rmdir()
    clone(comfyui, theirs)
    nodes = theirs / "custom_nodes"
    pack = clone(forge.node("pack"), nodes / "pack")
    clone(forge.node("other"), nodes / "renamed")
    clone(forge.node("edited"), nodes / "edited")
    (nodes / "edited" / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    clone(forge.node("off"), nodes / "off.disabled")
    (nodes / "mine").mkdir()
    (nodes / "mine" / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    (theirs / "models" / "loras").mkdir(parents=True, exist_ok=True)
    (theirs / "models" / "checkpoints").mkdir(exist_ok=True)
    (theirs / "models" / "checkpoints" / "a.safetensors").write_bytes(b"x")
    before = comfyui.git("status", "--short")

    said = init(here)
    assert f"ComfyUI v9.1.0 in {theirs}" in said
    assert f"4 custom nodes in {nodes}" in said
    assert f"models in {theirs / 'models'}" in said
    found = written(here)
    assert (found.comfyui.repo, found.comfyui.ref) == (comfyui.url, "v9.1.0")
    by_name = {node.name: node for node in found.custom_nodes}
    assert set(by_name) == {"pack", "renamed", "edited", "mine"}
    assert by_name["pack"].ref == pack.git("rev-parse", "HEAD")
    assert by_name["renamed"].url == f"{forge.folder.as_uri()}/other"
    assert Path(str(by_name["mine"].path)) == nodes / "mine"
    assert "# Edited in" in (here / "machine.yaml").read_text()
    assert [(root.path, root.read_only) for root in found.models.extra_roots] == [
        (theirs / "models", True)
    ]
    assert comfyui.git("status", "--short") == before

    rig = machine()
    text = (here / "machine.yaml").read_text()
    rig.file.write_text(text + "python: {torch: none}\n")
    rig.spec = yaml.safe_load(rig.file.read_text()) | {"workspace": "ws"}
    rig.doit("build")
    assert (rig.comfyui / "custom_nodes" / "renamed").is_dir()


def test_a_comfyui_without_a_repository_gives_its_nodes_and_models(here: Path) -> None:
    theirs = here / "ComfyUI"
    (theirs / "comfy").mkdir(parents=True)
    (theirs / "main.py").touch()
    (theirs / "custom_nodes" / "mine").mkdir(parents=True)
    (theirs / "custom_nodes" / "mine" / "__init__.py").touch()
    said = init(here)
    assert f"the ComfyUI in {theirs} is no clone: {COMFYUI.ref} is written instead" in said
    assert "1 custom node in" in said
    assert written(here).comfyui.ref == COMFYUI.ref


def test_a_models_folder_alone_is_used_where_it_is(here: Path) -> None:
    for kind in ("checkpoints", "vae"):
        (here.parent / "models" / kind).mkdir(parents=True)
    init(here, "-m", "empty.yaml")
    assert load(here / "empty.yaml", {}).models.extra_roots == (), "without a model it is none"
    (here.parent / "models" / "vae" / "ae.safetensors").write_bytes(b"x")
    init(here)
    (root,) = written(here).models.extra_roots
    assert root.path == here.parent / "models"


def test_nothing_is_ever_overwritten(here: Path) -> None:
    for name in ("machine.yaml", "machine.schema.json"):
        (here / name).write_text("mine")
    assert init(here, code=1) == f"init: {here}/machine.yaml exists, and stays as it is\n"
    assert init(here, "-m", "other.yaml").splitlines()[0] == "other.yaml is written"
    assert {path.read_text() for path in here.glob("machine.*")} == {"mine"}


def test_a_folder_that_is_not_there_is_named(here: Path) -> None:
    said = init(here, "-m", "gone/machine.yaml", code=1)
    assert said == f"init: No such file or directory: {here}/gone/machine.yaml\n"


def test_the_next_command_names_the_file(here: Path) -> None:
    assert "comfy-machine plan machine=other.yaml" in init(here, "--machine", "other.yaml")
