"""Packages that come as their source: who asks for one that doesn't build, and what it lacks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.lock.test_stage import lock_of
from tests.rig import Rig
from tests.wheels import sdist, wheel

pytestmark = pytest.mark.afresh
NO_HEADER = "device_api.c:9:10: fatal error: portaudio.h: No such file or directory"
NO_PROGRAM = "FileNotFoundError: [Errno 2] No such file or directory: 'frobnicate'"
#: uv keeps what it built by name and version, and its cache is the user's.
UNIQUE = os.urandom(4).hex()


def node(forge: Forge, name: str, requirements: str, **more: Any) -> dict[str, Any]:
    return {"url": forge.node(name, {"requirements.txt": requirements}).url, **more}


@pytest.fixture
def links(tmp_path: Path) -> Path:
    return tmp_path / "links"


def make(machine: MachineMaker, links: Path, *nodes: dict[str, Any]) -> Rig:
    python = {"torch": "none", "find_links": [str(links)]}
    return machine(custom_nodes=list(nodes), python=python)


def with_program(folder: Path) -> str:
    """A PATH on which the program that a build asks for is."""
    folder.mkdir()
    (folder / "frobnicate").symlink_to("/bin/true")
    return f"{folder}:{os.environ['PATH']}"


def test_what_does_not_build_is_told_with_who_asks_for_it_through_whom_and_what_it_lacks(
    machine: MachineMaker, forge: Forge, links: Path
) -> None:
    audio, speech = f"audio{UNIQUE}", f"speech{UNIQUE}"
    sdist(links, audio, "1.0", "nothing-of-this-name", NO_HEADER + "\n" + "noise\n" * 400)
    sdist(links, f"attn{UNIQUE}", "1.0", "nothing-of-this-name", "No module named 'torch'\n"
          "ModuleNotFoundError: No module named 'torch'")  # fmt: skip
    wheel(links, speech, "1.0", (audio,))
    rig = make(
        machine,
        links,
        node(forge, "alpha", f"toml\n{audio}\n"),
        node(forge, "beta", f"{speech}\n"),
        node(forge, "gamma", f"attn{UNIQUE}\n"),
        node(forge, "delta", f"{audio}\n", optional=True),
    )
    run = rig.doit("lock", code=1)
    lacks = "portaudio.h is missing (apt install portaudio19-dev)"
    of = f"custom node alpha, custom node beta (through {speech}), custom node delta"
    assert f"{audio} 1.0 of {of} can't be built: {lacks}\n" in run.output
    assert (
        f"custom node gamma's attn{UNIQUE} 1.0 (requirements.txt:1) can't be built: its build "
        "needs torch and doesn't declare it: take a wheel of it (python.find_links), or"
        in run.output
    )
    assert f"log: {rig.layout.log('lock')}" in run.output
    assert max(map(len, run.output.splitlines())) < 400
    assert lock_of(rig)["python"]["packages"][audio]["built"] is True, "what resolves is locked"


def test_an_optional_node_whose_package_does_not_build_leaves_and_comes_when_it_can(
    machine: MachineMaker, forge: Forge, links: Path, tmp_path: Path
) -> None:
    audio = f"late{UNIQUE}"
    sdist(links, audio, "1.0", "frobnicate", NO_PROGRAM)
    alpha = node(forge, "alpha", f"{audio}\n", optional=True)
    rig = make(machine, links, alpha, node(forge, "beta", "toml\n"))
    run = rig.doit("build")
    said = f"alpha (optional) is left out: custom node alpha's {audio} 1.0 (requirements.txt:1) "
    assert said + "can't be built: frobnicate is missing" in run.output
    assert "toml" in rig.packages()
    assert audio not in lock_of(rig)["python"]["packages"], "no other machine is to go by that"
    assert "left_out" not in lock_of(rig)["python"]
    assert rig.doit("build").executed == set(), "nothing that it lacked has come"
    run = rig.doit("build", PATH=with_program(tmp_path / "bin"))
    assert {"lock", "environment"} <= run.executed
    assert audio in rig.packages()
    assert rig.doit("build").executed == set()


def test_a_lock_that_is_used_as_it_is_is_proved_too_and_stays_as_it_is(
    machine: MachineMaker, forge: Forge, links: Path, tmp_path: Path
) -> None:
    audio = f"locked{UNIQUE}"
    sdist(links, audio, "1.0", "frobnicate", NO_PROGRAM)
    alpha = node(forge, "alpha", f"{audio}\n", optional=True)
    first = make(machine, links, alpha)
    path = with_program(tmp_path / "bin")
    first.doit("lock", PATH=path)
    locked = first.lock_file.read_text()
    assert f'"{audio}"' in locked
    second = machine("second", custom_nodes=[alpha], python=first.spec["python"])
    second.lock_file.write_text(locked)
    second.env["UV_CACHE_DIR"] = str(tmp_path / "empty")
    run = second.doit("lock", "locked=1")
    assert "! custom node alpha (optional) is left out: custom node alpha's" in run.output
    assert second.doit("lock", "locked=1").executed == set()
    assert second.lock_file.read_text() == locked
    assert f"build {audio} 1.0 from source" in second.doit("plan", "lock", PATH=path).output
    assert second.doit("lock", "locked=1", PATH=path).executed == {"lock"}
    assert second.doit("lock", "locked=1").executed == set()
