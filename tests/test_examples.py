"""The examples: each is a machine file that loads and plans, and says only what there is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from comfy_machine.spec import load
from tests.cards import Nvml, card
from tests.conftest import MachineMaker, uv_cache
from tests.contract.client import until
from tests.forge import Forge
from tests.model_server import model_server, safetensors
from tests.rig import DOIT, PROJECT, SIMULATOR, Rig, free_ports

EXAMPLES = PROJECT / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/machine.yaml"))
GITHUB, HUB, NAS = "https://github.com/", "https://huggingface.co", "/mnt/nas"
MODEL = "/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors"


def spec(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((EXAMPLES / name / "machine.yaml").read_text())
    return found


def test_there_is_one_for_each_kind_of_machine() -> None:
    assert set(NAMES) == {
        "ci", "cpu", "docker", "eight-gpus", "shared-models", "simulation", "single-gpu", "workers",
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_its_comfyui_is_the_one_of_the_project(name: str) -> None:
    machine = load(EXAMPLES / name / "machine.yaml", {"HEALTH_TOKEN": "x"})
    if name != "simulation":
        project = yaml.safe_load((PROJECT / "machine.yaml").read_text())["comfyui"]
        assert (machine.comfyui.repo, machine.comfyui.ref) == (project["repo"], project["ref"])
        assert (EXAMPLES / name / "README.md").stat().st_size > 200


@pytest.fixture
def forge_of_github(forge: Forge, tmp_path: Path) -> Path:
    """git's settings with which repositories of the examples are found here."""
    comfyui = forge.copy("Comfy-Org/ComfyUI.git", SIMULATOR)
    comfyui.git("tag", str(spec("cpu")["comfyui"]["ref"]))
    forge.node("cubiq/ComfyUI_essentials")
    settings = tmp_path / "gitconfig"
    settings.write_text(f'[url "{forge.folder.as_uri()}/"]\n\tinsteadOf = {GITHUB}\n')
    return settings


@pytest.mark.parametrize("name", [name for name in NAMES if name != "simulation"])
def test_it_plans_with_repositories_and_models_that_stand_for_the_real_ones(
    name: str, tmp_path: Path, forge_of_github: Path, nvml: Nvml, environments: Path
) -> None:
    folder = tmp_path / name
    shutil.copytree(EXAMPLES / name, folder)
    library = tmp_path / "nas" / "library" / "loras"
    library.mkdir(parents=True)
    (library / "house-style.safetensors").write_bytes(safetensors(1000))
    nvml.show(*map(card, range(1, 9)))
    with model_server() as server:
        server.content[MODEL] = safetensors(100_000)
        text = (EXAMPLES / name / "machine.yaml").read_text()
        text = text.replace(HUB, server.url).replace(NAS, str(tmp_path / "nas"))
        wanted = yaml.safe_load(text)
        # The index of torch's builds can't be asked here, /srv isn't ours, ports may be taken.
        wanted |= {"python": {"torch": "none"}, "workspace": "ws"}
        wanted["instances"]["port_start"] = free_ports(8)
        wanted["health"] = {**wanted.get("health", {}), "port": free_ports(1)}
        rig = Rig(folder, wanted, env={**nvml.env, "HEALTH_TOKEN": "x",
                  "GIT_CONFIG_GLOBAL": str(forge_of_github), "UV_CACHE_DIR": uv_cache(),
                  "XDG_CACHE_HOME": str(tmp_path / "cache")})  # fmt: skip
        # An image is built where there is no GPU.
        planned = rig.doit("plan", *(["build"] if name == "docker" else [])).planned
    gpus = wanted["instances"].get("gpus", "auto")
    number = gpus if isinstance(gpus, int) else int(bool(wanted["instances"].get("cpu_only")))
    assert {"source", "lock", "environment", "generation:assemble", "validation"} <= planned
    assert {f"pm2:gpu{gpu}" for gpu in range(number)} <= planned
    assert {f"nodes:{Path(node['url']).name}" for node in wanted.get("custom_nodes", [])} <= planned
    assert ("models" in planned) is any(
        "url" in f for f in wanted.get("models", {}).get("files", [])
    )
    workers = {task for task in planned if task.startswith("workers:")}
    assert len(workers) == (number if "workers" in wanted else 0)


def test_the_worker_of_the_example_does_what_its_readme_says(machine: MachineMaker) -> None:
    rig = machine(workers=spec("workers")["workers"], instances={"gpus": 2})
    shutil.copy(EXAMPLES / "workers" / "worker.py", rig.folder)
    rig.doit()
    workflow = {
        "1": {"class_type": "EmptyImage",
              "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "w"}},
    }  # fmt: skip
    until((rig.folder / "jobs").is_dir, 20, "the worker's folders")
    for number, body in enumerate((json.dumps(workflow), '{"1": {"class_type": "Nope"}}', "{")):
        (rig.folder / ".job").write_text(body)
        (rig.folder / ".job").rename(rig.folder / "jobs" / f"{number}.json")
    done = [rig.folder / "done" / f"{number}.json" for number in range(3)]
    until(lambda: all(path.exists() for path in done), 60, "the results")
    good, unknown, broken = (json.loads(path.read_text()) for path in done)
    (image,) = good["outputs"]["2"]["images"]
    shared = rig.workspace / "shared" / "outputs"
    assert list(shared.rglob(image["filename"]))
    assert "Nope" in unknown["error"]
    assert "not JSON" in broken["error"]
    assert not list((rig.folder / "taken").rglob("*.json"))
    # One that a killed worker left is taken again.
    left = rig.folder / "taken" / "comfyui-gpu1" / "left.json"
    left.write_text(json.dumps(workflow))
    rig.doit("restart", "worker")
    until((rig.folder / "done" / "left.json").exists, 60, "what was left")


WORDS = re.compile(r"(?:^|[\s(`])(?:\.venv/bin/)?doit ((?:[a-z]+)(?= |$|`)[^`\n]*)", re.M)


def commands() -> set[str]:
    """What doit knows: its commands and the tasks of dodo.py."""
    listed = subprocess.check_output([str(DOIT), "help"], cwd=PROJECT, text=True)
    tasks = subprocess.check_output(
        [str(DOIT), "list", "--quiet", f"machine={EXAMPLES / 'simulation' / 'machine.yaml'}"],
        cwd=PROJECT, text=True,
    )  # fmt: skip
    return {*re.findall(r"^ +(?:doit )?([a-z-]+) ", listed, re.M), *tasks.split()}


def test_readmes_and_the_recipe_use_commands_that_exist() -> None:
    known = commands()
    texts = {
        path: path.read_text() for path in EXAMPLES.glob("*/*.*") if path.suffix in (".md", ".yml")
    }
    used = {(path.parent.name, words.split()[0])
            for path, text in texts.items() for words in WORDS.findall(text)}  # fmt: skip
    assert len(used) > 12
    assert {(name, word) for name, word in used if word not in known} == set()
    files = {file for text in texts.values() for file in re.findall(r"machine=(\S+?\.yaml)", text)}
    assert {file for file in files if not (PROJECT / file).is_file()} == set()


def test_the_recipe_is_a_workflow_whose_steps_can_be_run() -> None:
    recipe = yaml.safe_load((EXAMPLES / "ci" / "build-image.yml").read_text())
    (job,) = recipe["jobs"].values()
    # YAML 1.1 reads the key `on` as true.
    assert {"push", "pull_request"} <= set(recipe[True])
    targets = set(re.findall(r"^([$()\w.-]+):", (PROJECT / "Makefile").read_text(), re.M))
    known, lines = commands(), []
    for step in job["steps"]:
        assert ("run" in step) is not ("uses" in step)
        assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/x@v1"))
        lines += step.get("run", "").splitlines()
    assert len(lines) > 6
    for line in lines:
        words = line.split()
        if words[:2] == ["docker", "exec"]:
            assert words[3] == "doit"
            words = words[3:]
        if words[0] == "make":
            assert {words[1], words[1].replace(".venv", "$(VENV)")} & targets
            for given in words[2:]:
                name, _, folder = given.partition("=")
                assert name in (PROJECT / "Makefile").read_text()
                assert (PROJECT / folder / "machine.yaml").is_file()
        elif words[0].endswith("doit"):
            assert words[1] in known
        else:
            assert words[:2] in (["docker", "run"], ["docker", "stop"], ["docker", "logs"])
    built = re.search(r"^image:.*?--tag (\S+)", (PROJECT / "Makefile").read_text(), re.M | re.S)
    assert built
    assert any(line.split()[-1] == built[1] for line in lines if line.startswith("docker run"))
    subprocess.run(
        ["make", "--dry-run", "image", "MACHINE_FILES=examples/ci", f"VENV={Path(sys.prefix)}"],
        cwd=PROJECT, env={**os.environ, "ENGINE": "true"}, check=True, capture_output=True,
    )  # fmt: skip
