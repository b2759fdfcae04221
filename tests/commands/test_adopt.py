"""doit adopt: an existing ComfyUI becomes a machine, and stays as it is."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
import yaml

from comfy_machine.spec import Lock, Machine, load
from comfy_machine.spec.lock_format import read_lock
from tests.benchmarks.adoption import snapshot
from tests.conftest import MachineMaker, uv_cache
from tests.contract.client import until
from tests.forge import Forge, Repository
from tests.rig import DOIT, SIMULATOR
from tests.test_cli import PROGRAM
from tests.wheels import wheel


class Place:
    """Somebody's ComfyUI, and a folder in which a machine file for it is written."""

    def __init__(self, folder: Path, forge: Forge) -> None:
        self.home = folder / "home"
        self.here = self.home / "machine"
        self.here.mkdir(parents=True)
        self.forge = forge
        self.repository = forge.copy("ComfyUI", SIMULATOR)
        self.repository.git("tag", "v9.1.0")
        self.comfyui = self.home / "ComfyUI"
        clone(self.repository, self.comfyui)

    def node(self, name: str, files: dict[str, str | None] | None = None) -> Repository:
        return clone(self.forge.node(name, files), self.comfyui / "custom_nodes" / name)

    def write(self, name: str, text: str) -> Path:
        file = self.comfyui / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def adopt(self, *words: str, folder: Path | None = None, code: int = 0, **env: str) -> str:
        """What it prints; nothing in the installation may change."""
        place = folder or self.comfyui
        before = snapshot(place) if place.is_dir() else {}
        ended = subprocess.run(
            [str(PROGRAM), "adopt", str(place), *words],
            cwd=self.here,
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C.UTF-8", **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert ended.returncode == code, ended.stdout
        assert snapshot(place) == before if place.is_dir() else True
        return ended.stdout

    @property
    def text(self) -> str:
        return (self.here / "machine.yaml").read_text()

    @property
    def machine(self) -> Machine:
        return load(self.here / "machine.yaml", {})

    @property
    def lock(self) -> Lock:
        return read_lock(self.here / "machine.lock", "machine.lock")


def clone(repository: Repository, folder: Path) -> Repository:
    subprocess.run(["git", "clone", "--quiet", repository.url, folder], check=True)
    return Repository(folder)


def environment(folder: Path, *wheels: Path) -> Path:
    """A virtual environment with these wheels, as people make one."""
    uv = str(DOIT.parent / "uv")
    variables = {**os.environ, "UV_CACHE_DIR": uv_cache()}
    python = folder / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", str(folder)], check=True, env=variables)
    install = [uv, "pip", "install", "--quiet", "--no-deps", "--python", str(python)]
    subprocess.run([*install, *map(str, wheels)], check=True, env=variables)
    return folder


@pytest.fixture
def place(tmp_path: Path, forge: Forge) -> Place:
    return Place(tmp_path, forge)


def test_commits_of_comfyui_and_nodes_are_kept(place: Place) -> None:
    pack = place.node("pack")
    commit = pack.git("rev-parse", "HEAD")
    said = place.adopt()
    assert said.splitlines()[0] == (
        "machine.yaml is written, with machine.lock, and machine.schema.json for editors"
    )
    assert f"ComfyUI v9.1.0, in {place.comfyui}" in said
    found = place.machine
    assert (found.comfyui.repo, found.comfyui.ref) == (place.repository.url, "v9.1.0")
    assert [(node.name, node.ref) for node in found.custom_nodes] == [("pack", commit)]
    assert place.lock.custom_nodes["pack"].commit == commit
    assert place.lock.comfyui
    assert place.lock.comfyui.ref == "v9.1.0"


@pytest.mark.parametrize("around", ["ComfyUI_windows_portable", "Data/Packages"])
def test_the_comfyui_in_a_folder_around_it_is_found(place: Place, around: str) -> None:
    outer = place.home / "outer"
    inner = outer / around / "ComfyUI"
    inner.parent.mkdir(parents=True)
    place.comfyui.rename(inner)
    assert f"in {inner}" in place.adopt(folder=outer)


def test_of_several_one_must_be_named(place: Place) -> None:
    clone(place.repository, place.home / "both" / "one")
    clone(place.repository, place.home / "both" / "two")
    said = place.adopt(folder=place.home / "both", code=1)
    assert "has several: name one of " in said
    assert not (place.here / "machine.yaml").exists()


def test_edits_are_named_and_the_folder_is_offered(place: Place) -> None:
    place.node("pack")
    place.write("custom_nodes/pack/__init__.py", "NODE_CLASS_MAPPINGS = {}\n")
    place.write("nodes.py", "# mine\n")
    said = place.adopt()
    assert "edited, and without the edits here: ComfyUI: nodes.py\n" in said
    assert "edited, and without the edits here: pack: __init__.py\n" in said
    assert place.text.count("# Edited there: ") == 2
    assert f"path: {place.comfyui}\n" in place.text


def test_a_commit_that_was_made_there_is_taken_with_its_folder(place: Place) -> None:
    pack = place.node("pack")
    pack.commit({"more.py": ""})
    place.adopt()
    (node,) = place.machine.custom_nodes
    assert node.path == pack.folder
    assert "isn't known to be in" in place.text


def test_a_copy_without_a_repository_is_its_release_where_there_is_one(place: Place) -> None:
    subprocess.run(["rm", "-rf", place.comfyui / ".git"], check=True)
    settings = place.home / ".gitconfig"
    settings.write_text(
        f'[url "{place.repository.url}"]\n\tinsteadOf = https://github.com/Comfy-Org/ComfyUI.git\n'
    )
    place.write("comfyui_version.py", '__version__ = "9.2.0"\n')
    place.adopt("-m", "copied.yaml")
    copied = load(place.here / "copied.yaml", {})
    assert copied.comfyui.path == place.comfyui, "its repository has no such tag"
    place.repository.git("tag", "v9.2.0")
    place.adopt()
    assert place.machine.comfyui.ref == "v9.2.0"
    assert "what was changed in it isn't known" in place.text


def test_nodes_without_a_repository_are_linked_and_those_turned_off_are_named(
    place: Place,
) -> None:
    place.write("custom_nodes/mine/__init__.py", "NODE_CLASS_MAPPINGS = {}\n")
    place.write("custom_nodes/off.disabled/__init__.py", "")
    place.write("custom_nodes/single.py", "NODE_CLASS_MAPPINGS = {}\n")
    said = place.adopt()
    (node,) = place.machine.custom_nodes
    assert node.path == place.comfyui / "custom_nodes" / "mine"
    assert "off.disabled: turned off" in said
    assert "single.py: a custom node in a single file" in said
    assert "# Not taken over:\n" in place.text


def test_a_node_of_the_registry_is_its_version(place: Place) -> None:
    folder = "custom_nodes/comfyui-pack"
    place.write(f"{folder}/__init__.py", "NODE_CLASS_MAPPINGS = {}\n")
    place.write(f"{folder}/.tracking", "__init__.py\n")
    place.write(f"{folder}/pyproject.toml", '[project]\nname = "comfyui-pack"\nversion = "1.2.3"\n')
    place.adopt()
    (node,) = yaml.safe_load(place.text)["custom_nodes"]
    assert node == {"id": "comfyui-pack", "version": "1.2.3"}


def test_models_are_linked_where_they_are_with_their_sha256(place: Place) -> None:
    elsewhere = place.home / "disk"
    elsewhere.mkdir()
    (elsewhere / "big.safetensors").write_bytes(b"big")
    models = place.comfyui / "models"
    (models / "loras" / "flux").mkdir(parents=True, exist_ok=True)
    (models / "loras" / "flux" / "a.safetensors").write_bytes(b"a")
    (models / "loras" / "again").symlink_to(models / "loras")
    (models / "vae").mkdir(exist_ok=True)
    (models / "vae" / "linked.safetensors").symlink_to(elsewhere / "big.safetensors")
    (models / "vae" / "put_vae_here").touch()
    (models / "vae" / "gone.safetensors").symlink_to("nowhere")
    (models / "vae" / "half.safetensors.part").write_bytes(b"half")
    said = place.adopt()
    found = {each.target: each for each in place.machine.models.files}
    assert set(found) == {"loras/flux/a.safetensors", "vae/linked.safetensors"}
    assert found["vae/linked.safetensors"].source == models / "vae" / "linked.safetensors"
    assert found["vae/linked.safetensors"].sha256 == hashlib.sha256(b"big").hexdigest()
    assert "gone.safetensors is a broken link" in said
    assert "half.safetensors.part is an unfinished download" in said
    place.adopt("--no-hash", "-m", "fast.yaml")
    assert {each.sha256 for each in load(place.here / "fast.yaml", {}).models.files} == {None}


def test_hashing_can_be_interrupted_and_leaves_nothing(place: Place) -> None:
    with place.write("models/vae/huge.safetensors", "x").open("r+b") as huge:
        huge.truncate(1 << 40)
    adopting = subprocess.Popen(
        [str(PROGRAM), "adopt", str(place.comfyui)], cwd=place.here, stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": str(place.home)},
    )  # fmt: skip
    process = psutil.Process(adopting.pid)
    until(lambda: any(f.path.endswith("huge.safetensors") for f in process.open_files()), 30, "it")
    adopting.send_signal(signal.SIGINT)
    _, said = adopting.communicate(timeout=30)
    assert adopting.returncode == 128 + signal.SIGINT
    assert b"Traceback" not in said
    assert list(place.here.iterdir()) == []


def test_models_of_extra_model_paths_are_found_by_their_type(place: Place) -> None:
    webui = place.home / "webui" / "models"
    for name in ("Stable-diffusion/xl.safetensors", "Lora/a.safetensors"):
        (webui / name).parent.mkdir(parents=True)
        (webui / name).write_bytes(name.encode())
    own = place.write("models/loras/a.safetensors", "own")
    place.write(
        "extra_model_paths.yaml",
        "webui:\n  base_path: ../webui\n  checkpoints: models/Stable-diffusion\n"
        "  loras: |\n    models/Lora\n    models/Gone\n",
    )
    said = place.adopt()
    found = {each.target: each.source for each in place.machine.models.files}
    assert found == {
        "checkpoints/xl.safetensors": webui / "Stable-diffusion" / "xl.safetensors",
        "loras/a.safetensors": own,
    }
    assert "Lora/a.safetensors is hidden by" in said
    assert "models/Gone, loras of webui, isn't there" in said


def test_what_would_be_two_models_or_nodes_of_one_name_is_one(place: Place) -> None:
    other = place.home / "other"
    for name in ("custom_nodes/pack/__init__.py", "custom_nodes/a@b/__init__.py"):
        place.write(name, "NODE_CLASS_MAPPINGS = {}\n")
        (other / name).parent.mkdir(parents=True)
        (other / name).write_text("")
    place.write("models/loras/a/b.safetensors", "b")
    (other / "loras").mkdir()
    (other / "loras" / "a").write_text("a file where there is a folder")
    (other / "loras" / "v1.yaml").write_text("a: 1")
    place.write(
        "extra_model_paths.yaml",
        "other:\n  base_path: ../other\n  loras: loras\n  custom_nodes: custom_nodes\n"
        "  configs: loras\n  output: loras\n",
    )
    said = place.adopt()
    assert {node.name for node in place.machine.custom_nodes} == {"pack", "node-a_b"}
    assert {each.target for each in place.machine.models.files} == {
        "loras/a/b.safetensors", "loras/v1.yaml", "configs/v1.yaml",
    }  # fmt: skip
    assert f"{other}/custom_nodes/pack: {place.comfyui}/custom_nodes/pack has the same name" in said
    assert f"{other}/loras/a has the name of a folder" in said


def test_arguments_of_its_start_script_become_fields(place: Place) -> None:
    place.write(
        "start.sh",
        "#!/bin/sh\nexport HF_TOKEN=hf_secret\nARGS='--lowvram --port 8300'\n"
        'python main.py $ARGS --listen \\\n  --cpu --output-directory /data "$@"\n',
    )
    said = place.adopt()
    instances = place.machine.instances
    assert (instances.port_start, instances.listen, instances.cpu_only) == (8300, "0.0.0.0", True)
    assert instances.args == ("--lowvram",)
    assert "--output-directory /data: the machine sets it" in said
    assert "set in start.sh: HF_TOKEN; see instances.env" in said
    assert "hf_secret" not in said + place.text


def test_settings_and_workflows_are_what_an_instance_starts_with(
    place: Place, machine: MachineMaker
) -> None:
    place.write("user/default/comfy.settings.json", '{"key": "secret"}')
    place.write("user/default/workflows/mine.json", "{}")
    place.write("user/comfyui.log", "old")
    place.write("user/comfyui.db", "old")
    said = place.adopt()
    assert "secret" not in said + place.text
    rig = machine(instances={"user": str(place.machine.instances.user), "gpus": 2})
    rig.doit("directories")
    user = rig.layout.instance(1) / "user"
    names = {path.relative_to(user).as_posix() for path in user.rglob("*") if path.is_file()}
    assert names == {"default/comfy.settings.json", "default/workflows/mine.json"}
    assert (user / "default" / "comfy.settings.json").stat().st_mode & 0o777 == 0o600
    (user / "default" / "workflows" / "mine.json").unlink()
    place.write("user/default/workflows/later.json", "{}")
    assert rig.doit("directories").executed == set()
    assert not (user / "default" / "workflows" / "later.json").exists(), "it is copied once"


def test_a_missing_folder_of_settings_is_named(machine: MachineMaker) -> None:
    rig = machine(instances={"user": "/nowhere/user"})
    assert "instances.user: /nowhere/user is missing" in rig.doit("directories", code=1).output


def test_installed_versions_are_preferred_by_the_first_build(
    place: Place, machine: MachineMaker
) -> None:
    wheels = place.home / "wheels"
    names = ("adopted-tool", "adopted-wish", "adopted-dropped")
    olds = [wheel(wheels, name, "1.0") for name in names]
    local = wheel(wheels, "adopted-local", "1.0+mine")
    for name in names[:2]:
        wheel(wheels, name, "2.0")
    place.node("pack", {"requirements.txt": "adopted-tool\n"})
    environment(place.comfyui / "venv", *olds, local)
    record = next(
        (place.comfyui / "venv").glob("lib/*/site-packages/adopted_dropped-1.0.dist-info")
    )
    (record / "REQUESTED").unlink()
    # An index's packages have no direct_url.json, those of a file do.
    for file in (place.comfyui / "venv").rglob("direct_url.json"):
        file.unlink()
    said = place.adopt()
    assert place.lock.preferred["adopted-tool"].version == "1.0"
    assert place.machine.python.packages == ("adopted-wish",), (
        "what was a dependency isn't wished for"
    )
    assert "the package adopted-local 1.0+mine: a build of its own" in said

    rig = machine()
    spec = yaml.safe_load(place.text) | {"workspace": "ws"}
    spec["python"] |= {"torch": "none", "find_links": [str(wheels)]}
    rig.spec, instances = spec, rig.spec["instances"]
    spec["instances"] = {**spec["instances"], **instances}
    rig.lock_file.write_text((place.here / "machine.lock").read_text())
    rig.doit("build")
    found = rig.packages()
    assert (found["adopted-tool"], found["adopted-wish"]) == ("1.0", "1.0")
    assert not {"adopted-dropped", "adopted-local"} & found.keys(), "nothing asks for them"
    after = read_lock(rig.lock_file, "machine.lock")
    assert after.preferred == {}
    assert after.python
    assert (rig.comfyui / "custom_nodes" / "pack").is_dir()
    assert rig.doit("build").executed == set()


def test_a_local_build_of_torch_is_its_build(place: Place) -> None:
    for version, build in (("2.9.1+cu128", "cu128"), ("2.9.1", "pypi"), ("2.6.0a0+nv24", "auto")):
        file = wheel(place.home / version, "torch", version)
        folder = environment(place.home / f"venv-{build}", file)
        place.adopt("-m", f"{build}.yaml", "--python", str(folder / "bin" / "python"))
        assert load(place.here / f"{build}.yaml", {}).python.torch == build


def test_nothing_is_overwritten_and_nothing_is_written_into_the_installation(place: Place) -> None:
    (place.here / "machine.lock").write_text("mine")
    assert "machine.lock exists, and stays as it is" in place.adopt(code=1)
    assert not (place.here / "machine.yaml").exists()
    inside = place.adopt("-m", str(place.comfyui / "machine.yaml"), code=1)
    assert "would lie in the installation, which stays as it is" in inside


def test_what_is_no_installation_is_named(place: Place) -> None:
    nothing = place.home / "nothing"
    assert f"{nothing} is no folder" in place.adopt(folder=nothing, code=1)
    nothing.mkdir()
    assert f"{nothing} has no ComfyUI" in place.adopt(folder=nothing, code=1)
    said = place.adopt("--python", str(nothing), code=1)
    assert f"{nothing} is no Python" in said


def test_the_file_fits_its_schema(place: Place) -> None:
    import jsonschema

    place.node("pack")
    place.write("user/default/comfy.settings.json", "{}")
    place.adopt()
    schema = json.loads((place.here / "machine.schema.json").read_text())
    jsonschema.validate(yaml.safe_load(place.text), schema)
