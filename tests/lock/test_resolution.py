"""One resolve for all: conflicts name who asks for what, twins become one, torch is held still."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.lock.test_stage import lock_of, pin, pinned
from tests.rig import SIMULATOR, Rig
from tests.wheels import wheel

pytestmark = pytest.mark.afresh
HEADLESS = "opencv-python-headless"


def node(forge: Forge, name: str, requirements: str, **more: Any) -> dict[str, Any]:
    return {"url": forge.node(name, {"requirements.txt": requirements}).url, **more}


def test_a_conflict_names_the_nodes_their_lines_and_an_override_that_settles_it(
    machine: MachineMaker, forge: Forge
) -> None:
    nodes = [node(forge, "old", "# a\npackaging<24\n"), node(forge, "new", "packaging>=24.1\n")]
    # What would settle it is told as far as uv's cache knows, so it has to know the old version.
    machine("before", custom_nodes=nodes[:1]).doit("lock")
    rig = machine(custom_nodes=nodes)
    run = rig.doit("build", code=2)
    assert run.failed == {"lock"}
    assert "custom node old requires 'packaging<24' (requirements.txt:2)" in run.output
    assert "custom node new requires 'packaging>=24.1' (requirements.txt:1)" in run.output
    assert "this would solve it: python.overrides: ['packaging<24']" in run.output
    assert not rig.lock_file.exists()
    rig.spec["python"]["overrides"] = ["packaging<24"]
    rig.doit("lock")
    assert pinned(rig, "packaging") < "24"


def test_of_a_conflict_with_an_optional_node_the_optional_one_is_left_out(
    machine: MachineMaker, forge: Forge
) -> None:
    nodes = [
        node(forge, "first", "packaging<24\n"),
        node(forge, "second", "packaging>=24.1\ntoml\n", optional=True),
        node(forge, "third", "idna\n", optional=True),
    ]
    rig = machine(custom_nodes=nodes)
    run = rig.doit("build")
    said = "! custom node second (optional) is left out: packages can't be resolved"
    assert said in run.output
    assert set(lock_of(rig)["python"]["left_out"]) == {"second"}
    assert "toml" not in rig.packages()
    assert not (rig.comfyui / "custom_nodes" / "second").exists()
    assert (rig.comfyui / "custom_nodes" / "third").is_dir()
    again = rig.doit("build")
    assert again.executed == set()
    assert said in again.output
    status = rig.doit("status", code=1)
    assert "second (optional) is left out" in status.output
    shown = json.loads(rig.doit("status", "--json", code=1).output)
    assert set(shown["left_out"]) == {"second"}
    rig.spec["python"]["overrides"] = ["packaging>=24.1"]
    rig.doit("build")
    assert "toml" in rig.packages()


def test_of_several_optional_nodes_only_the_one_in_conflict_is_left_out_whatever_is_in_the_cache(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    nodes = [
        node(forge, "first", "packaging<22\n", optional=True),
        node(forge, "second", "black==24.1.0\n", optional=True),
        node(forge, "third", "packaging\n", optional=True),
        node(forge, "fourth", "packaging>=20\n", optional=True),
        node(forge, "fifth", "black\n", optional=True),
        node(forge, "sixth", "packaging>=24\n", optional=True),
    ]
    rig = machine(custom_nodes=nodes)
    rig.env["UV_CACHE_DIR"] = str(tmp_path / "empty")
    rig.doit("lock")
    # black asks for packaging>=22 in each version that is built for this Python.
    left = lock_of(rig)["python"]["left_out"]
    assert set(left) == {"first"}, "one, rather than the three that don't fit to it"
    warm = machine("warm", custom_nodes=nodes)
    warm.doit("lock")
    assert lock_of(warm)["python"]["left_out"] == left


def test_an_optional_node_with_a_line_that_is_refused_is_left_out(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine(custom_nodes=[node(forge, "alpha", "-e .\n", optional=True)])
    assert "alpha (optional) is left out: custom node alpha requires" in rig.doit("lock").output
    rig.spec["custom_nodes"][0]["optional"] = False
    rig.spec["custom_nodes"].append(node(forge, "beta", "toml=1\n"))
    run = rig.doit("lock", code=1)
    assert "custom node alpha requires the local '-e .' (requirements.txt:1)" in run.output
    assert "custom node beta requires 'toml=1' (requirements.txt:1), which isn't" in run.output


def test_a_package_that_does_not_build_is_blamed_on_its_node(
    machine: MachineMaker, forge: Forge
) -> None:
    broken = forge.repository("broken", {"setup.py": "raise SystemExit('no compiler here')\n"})
    rig = machine(custom_nodes=[node(forge, "alpha", f"broken @ git+{broken.url}\n")])
    run = rig.doit("lock", code=1)
    assert f"custom node alpha requires 'broken @ git+{broken.url}'" in run.output
    assert "no compiler here" in run.output


def test_an_unpinned_repository_among_requirements_is_locked_at_its_commit(
    machine: MachineMaker, forge: Forge
) -> None:
    project = '[project]\nname = "tiny"\nversion = "1.0"\n[tool.setuptools]\npackages = []\n'
    tiny = forge.repository("tiny", {"pyproject.toml": project})
    rig = machine(custom_nodes=[node(forge, "alpha", f"tiny @ git+{tiny.url}\n")])
    rig.doit("lock")
    commit = tiny.git("rev-parse", "HEAD")
    assert lock_of(rig)["python"]["packages"]["tiny"] == {"git": tiny.url, "commit": commit}
    tiny.commit({"later.txt": ""})
    rig.spec["custom_nodes"].append(node(forge, "beta", "toml\n"))
    rig.doit("build")
    assert lock_of(rig)["python"]["packages"]["tiny"]["commit"] == commit
    assert rig.packages()["tiny"] == "1.0"
    rig.doit("update", "tiny")
    assert lock_of(rig)["python"]["packages"]["tiny"]["commit"] == tiny.git("rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("asked", "prefer", "kept"),
    [
        (["opencv-python", HEADLESS], {}, HEADLESS),
        (
            [HEADLESS, "opencv-contrib-python"],
            {},
            "opencv-contrib-python-headless",
        ),
        (
            ["opencv-python", HEADLESS],
            {"opencv": "opencv-python"},
            "opencv-python",
        ),
        (["opencv-contrib-python; sys_platform == 'win32'", "opencv-python"], {}, HEADLESS),
    ],
)
def test_of_packages_that_overwrite_each_other_one_is_kept_and_it_is_said(
    machine: MachineMaker, forge: Forge, asked: list[str], prefer: dict[str, str], kept: str
) -> None:
    nodes = [node(forge, f"node{number}", name) for number, name in enumerate(asked)]
    rig = machine(custom_nodes=nodes, python={"torch": "none", "prefer": prefer})
    run = rig.doit("lock")
    there = {name for name in lock_of(rig)["python"]["packages"] if name.startswith("opencv")}
    assert there == {kept}
    for name in {name for name in asked if ";" not in name} - {kept}:
        assert f"{name} is replaced by {kept}" in run.output


def test_prefer_names_what_it_knows(machine: MachineMaker) -> None:
    rig = machine(python={"torch": "none", "prefer": {"opencv": "pillow"}})
    assert "opencv is one of opencv-contrib-python, " in rig.doit("list", code=3).output
    rig.spec["python"]["prefer"] = {"open-cv": "opencv-python"}
    assert "did you mean opencv?" in rig.doit("list", code=3).output


def test_what_is_locked_fits_every_patch_release_of_this_python(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    links = tmp_path / "links"
    wheel(links, "tiny", "1.0")
    wheel(links, "tiny", "2.0", python=">={}.{}.{}".format(*sys.version_info))
    rig = machine(
        custom_nodes=[node(forge, "alpha", "tiny\n")],
        python={"torch": "none", "find_links": [str(links)]},
    )
    rig.doit("lock")
    assert pinned(rig, "tiny") == "1.0"


def test_an_index_that_does_not_answer_is_nobodys_fault(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    rig = machine(custom_nodes=[node(forge, "alpha", "toml\n", optional=True)])
    rig.env |= {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
    run = rig.doit("lock", code=1, UV_CACHE_DIR=str(tmp_path / "empty"))
    assert "check that it is reachable" in run.output
    assert "left out" not in run.output


@pytest.fixture
def links(tmp_path: Path) -> Path:
    """A folder of wheels, with torches of our own in it; no index has their versions."""
    folder = tmp_path / "links"
    for version in ("0.0.1", "0.0.2"):
        wheel(folder, "torch", version)
    return folder


@pytest.fixture
def with_torch(machine: MachineMaker, forge: Forge, links: Path) -> Rig:
    """A machine whose ComfyUI asks for torch, locked at 0.0.1 of two that there are."""
    comfyui = forge.copy("ComfyUI", SIMULATOR)
    comfyui.commit({"requirements.txt": "aiohttp\nPillow\nPyYAML\ntorch<0.1\n"})
    rig = machine(
        comfyui={"repo": comfyui.url}, python={"torch": "pypi", "find_links": [str(links)]}
    )
    rig.doit("lock")
    pin(rig, "torch", "0.0.1")
    return rig


def test_torch_is_held_at_the_locked_build(with_torch: Rig, forge: Forge) -> None:
    rig = with_torch
    rig.spec["custom_nodes"] = [node(forge, "alpha", "toml\ntorch\n")]
    rig.doit("lock")
    assert pinned(rig, "torch") == "0.0.1"
    rig.spec["custom_nodes"] = [node(forge, "beta", "torch>=0.0.2\n")]
    run = rig.doit("lock", code=1)
    assert "custom node beta requires 'torch>=0.0.2'" in run.output
    assert "the lock holds torch 0.0.1 (doit update torch moves it)" in run.output
    assert "torch 0.0.1 → 0.0.2" in rig.doit("update", "torch").moves


def test_a_script_that_changes_torch_fails_by_name(
    with_torch: Rig, forge: Forge, links: Path
) -> None:
    rig = with_torch
    pip = f"python -m pip --isolated install -q --no-index -f {links} torch==0.0.2"
    alpha: dict[str, Any] = {"url": forge.node("alpha").url, "script": pip}
    rig.spec["custom_nodes"] = [alpha]
    run = rig.doit("build", code=2)
    assert run.failed == {"generation:scripts"}
    assert "the script of custom node alpha changed torch 0.0.1 to 0.0.2 (put back)" in run.output
    assert not rig.layout.current.exists()
    (home,) = rig.layout.environments.glob("*/lib/python*/site-packages/torch-*.dist-info")
    assert home.name == "torch-0.0.1.dist-info"
    alpha["optional"] = True
    assert "! the script of custom node alpha changed torch" in rig.doit("build").output
    assert rig.packages()["torch"] == "0.0.1"


def test_a_node_that_changes_torch_while_it_is_imported_fails_the_build(
    with_torch: Rig, forge: Forge, links: Path
) -> None:
    rig = with_torch
    code = (
        "import subprocess, sys\n"
        "subprocess.check_call([sys.executable, '-m', 'pip', '--isolated', 'install', '-q',\n"
        f"                       '--no-index', '--find-links', {str(links)!r}, 'torch==0.0.2'])\n"
        "NODE_CLASS_MAPPINGS = {}\n"
    )
    rig.spec["custom_nodes"] = [{"url": forge.repository("alpha", {"__init__.py": code}).url}]
    run = rig.doit("build", code=2)
    assert run.failed == {"validation"}
    assert "during its import, changed torch 0.0.1 to 0.0.2 (put back)" in run.output


def test_what_a_script_adds_is_listed_and_what_it_changes_is_put_back(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    links = tmp_path / "links"
    wheel(links, "extra-of-alpha", "1.0")
    wheel(links, "idna", "2.0")
    pip = f"python -m pip --isolated install -q --no-index -f {links} extra-of-alpha idna==2.0"
    rig = machine(custom_nodes=[{"url": forge.node("alpha").url, "script": pip}])
    run = rig.doit("build")
    assert "the script of custom node alpha installed extra-of-alpha 1.0, which" in run.output
    idna = pinned(rig, "idna")
    assert f"! the script of custom node alpha changed idna {idna} to 2.0 (put" in run.output
    assert rig.packages()["idna"] == idna
    assert rig.packages()["extra-of-alpha"] == "1.0"
    assert rig.doit("build").executed == set()


def test_hashes_that_a_node_asks_for_are_obeyed(machine: MachineMaker, forge: Forge) -> None:
    rig = machine(custom_nodes=[node(forge, "alpha", f"toml --hash=sha256:{'0' * 64}\n")])
    run = rig.doit("lock", code=1)
    assert "custom node alpha requires toml by hashes that no file of 0.10.2 has" in run.output
    rig.spec["custom_nodes"] = [node(forge, "beta", "toml\n")]
    rig.doit("lock")
    (one, *_) = lock_of(rig)["python"]["packages"]["toml"]["sha256"]
    rig.spec["custom_nodes"] = [node(forge, "gamma", f"toml --hash=sha256:{one}\n")]
    rig.doit("lock")
    assert lock_of(rig)["python"]["packages"]["toml"]["sha256"] == [one]


def family(rig: Rig) -> dict[str, str]:
    """The torch family as it is locked."""
    packages = lock_of(rig)["python"]["packages"]
    return {name: packages[name]["version"] for name in packages if name.startswith("torch")}


@pytest.fixture
def with_family(machine: MachineMaker, forge: Forge, links: Path) -> Rig:
    """A machine whose ComfyUI asks for torch, torchvision and torchaudio; no index has any of 90.

    A torchaudio of two minor versions names no torch; torchvision does.
    """
    for torch, vision in (("90.1.0", "80.1.0"), ("90.2.0", "80.2.0"), ("90.3.0", "80.3.0")):
        wheel(links, "torch", torch)
        wheel(links, "torchvision", vision, (f"torch=={torch}",))
    for version in ("90.1.0", "90.2.0"):
        wheel(links, "torchaudio", version)
    comfyui = forge.copy("ComfyUI", SIMULATOR)
    asked = "aiohttp\nPillow\nPyYAML\ntorch>=90\ntorchvision>=80\ntorchaudio>=90\n"
    comfyui.commit({"requirements.txt": asked})
    python = {"torch": "pypi", "find_links": [str(links)]}
    return machine(comfyui={"repo": comfyui.url}, python=python)


def test_torchaudio_that_names_no_torch_is_matched_by_its_minor_version(
    with_family: Rig,
) -> None:
    rig = with_family
    rig.doit("lock")
    assert family(rig) == {"torch": "90.2.0", "torchvision": "80.2.0", "torchaudio": "90.2.0"}


def test_torchaudio_that_names_a_torch_is_left_to_what_it_says(
    with_family: Rig, links: Path
) -> None:
    rig = with_family
    wheel(links, "torchaudio", "90.2.1", ("torch>=90.2",))
    rig.doit("lock")
    assert family(rig) == {"torch": "90.3.0", "torchvision": "80.3.0", "torchaudio": "90.2.1"}


def test_an_override_of_torch_wins_and_the_others_are_chosen_to_fit_it(with_family: Rig) -> None:
    rig = with_family
    rig.doit("lock")
    rig.spec["python"]["overrides"] = ["torch==90.1.0"]
    rig.doit("lock")
    assert family(rig) == {"torch": "90.1.0", "torchvision": "80.1.0", "torchaudio": "90.1.0"}
    # There is no torchaudio 90.3: that they match is a guess of ours, the override is not.
    rig.spec["python"]["overrides"] = ["torch==90.3.0"]
    rig.doit("lock")
    assert family(rig) == {"torch": "90.3.0", "torchvision": "80.3.0", "torchaudio": "90.2.0"}
    rig.spec["python"]["overrides"] = ["torch==90.3.0", "torchaudio==90.1.0"]
    rig.doit("lock")
    assert family(rig) == {"torch": "90.3.0", "torchvision": "80.3.0", "torchaudio": "90.1.0"}
    rig.spec["python"]["overrides"] = []
    rig.doit("lock")
    assert family(rig)["torch"] == "90.3.0", "what the lock holds, it holds still"


def test_an_override_of_torch_wins_over_a_node_that_asks_for_another(
    with_family: Rig, forge: Forge
) -> None:
    rig = with_family
    rig.spec["custom_nodes"] = [node(forge, "alpha", "torch==90.1.0\n")]
    rig.spec["python"]["overrides"] = ["torch==90.2.0"]
    rig.doit("lock")
    assert family(rig)["torch"] == "90.2.0"


def test_a_conflict_with_what_is_matched_says_that_it_is(with_family: Rig, forge: Forge) -> None:
    rig = with_family
    rig.spec["custom_nodes"] = [node(forge, "alpha", "torch>=90.3\n")]
    run = rig.doit("lock", code=1)
    assert "custom node alpha requires 'torch>=90.3' (requirements.txt:1)" in run.output
    assert "torch==90.2.* matches torch and torchaudio, whose metadata doesn't" in run.output
    rig.spec["python"]["overrides"] = ["torch==90.3.0"]
    rig.doit("lock")
    assert family(rig)["torch"] == "90.3.0"
