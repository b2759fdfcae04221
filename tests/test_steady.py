"""A steady state: whatever custom nodes do at their import, a second run has nothing to do."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from comfy_machine.host.python import uv
from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.rig import Rig
from tests.wheels import wheel

pytestmark = pytest.mark.afresh

START = "import os, subprocess, sys\nhere = os.path.dirname(os.path.realpath(__file__))\n"
END = "\nNODE_CLASS_MAPPINGS = {}\n"
SELFSAME = """
import json
file = os.path.join(here, 'settings.json')
count = json.load(open(file)).get('starts', 0) + 1
json.dump({'starts': count}, open(file, 'w'))
"""
COMMITTER = """
subprocess.check_call(['git', '-c', 'user.name=n', '-c', 'user.email=e@localhost', '-C', here,
                       'commit', '-q', '--allow-empty', '-m', 'at import'])
"""
EVERY_SECOND = """
mark = os.path.join(here, 'mark')
if os.path.exists(mark):
    open(os.path.join(here, 'README.md'), 'a').write('x')
    os.remove(os.path.join(here, 'LICENSE')) if os.path.exists(os.path.join(here, 'LICENSE')) else 0
else:
    open(mark, 'w').close()
"""


def pack(forge: Forge, name: str, code: str, files: dict[str, str | None] | None = None) -> str:
    source = {"__init__.py": START + code + END, **(files or {})}
    return forge.repository(name, {**source}).url


def pid(rig: Rig) -> int:
    return rig.running()["comfyui-gpu0"].pid


def is_steady(rig: Rig) -> None:
    """A second run executes nothing, restarts nobody and has nothing to warn of."""
    before = pid(rig)
    run = rig.doit()
    assert (run.executed, pid(rig)) == (set(), before), run.output
    assert "!" not in run.output


def test_packs_that_change_themselves_are_named_once_and_stop_nothing(
    machine: MachineMaker, forge: Forge
) -> None:
    files: dict[str, str | None] = {"README.md": "x", "LICENSE": "x"}
    selfsame = forge.repository(
        "selfsame", {"__init__.py": START + SELFSAME + END, "settings.json": "{}"}
    )
    mover = forge.repository("mover", {"S/__init__.py": END, "S/lib/deep.py": "", "readme": ""})
    rig = machine(
        custom_nodes=[
            {"url": selfsame.url},
            {"url": pack(forge, "committer", COMMITTER)},
            {"url": pack(forge, "second", EVERY_SECOND, files)},
            {"url": mover.url, "script": "if [ -d S ]; then mv S/* . && rmdir S; fi"},
        ]
    )
    said = rig.doit().output
    assert "! custom node selfsame itself changes settings.json of its own repository" in said
    assert "! custom node committer itself moved its own checkout from " in said
    assert "custom node second" not in said
    is_steady(rig)
    rig.doit("restart")
    is_steady(rig)
    shown = rig.doit("status").output
    assert "custom node second itself changes LICENSE, README.md of its own repository" in shown
    assert "custom node committer itself moved its own checkout" in shown

    custom = rig.comfyui / "custom_nodes"
    starts = json.loads((custom / "selfsame" / "settings.json").read_text())["starts"]
    assert starts == 3, "the proof, and two starts"
    rig.spec["custom_nodes"].append({"url": forge.node("another").url})
    run = rig.doit()
    assert "edited by hand" not in run.output
    assert "generation:scripts" not in run.executed
    moved = rig.comfyui / "custom_nodes"
    assert moved != custom
    assert (moved / "mover" / "lib" / "deep.py").is_file()
    assert not (moved / "mover" / "S").exists(), "what the script did came along"
    assert json.loads((moved / "selfsame" / "settings.json").read_text())["starts"] == starts + 2
    is_steady(rig)

    selfsame.commit({"settings.json": '{"starts": 10}'}, tag="v2")
    mover.commit({"S/lib/new.py": ""}, tag="v2")
    for node in (rig.spec["custom_nodes"][0], rig.spec["custom_nodes"][3]):
        node["ref"] = "v2"
    run = rig.doit()
    left = rig.layout.left / "selfsame" / "settings.json"
    assert f"had rewritten settings.json; the old content is in {left.parent}" in run.output
    assert json.loads(left.read_text())["starts"] == starts + 2
    assert (rig.comfyui / "custom_nodes" / "mover" / "lib" / "new.py").is_file()
    is_steady(rig)


def test_what_was_installed_by_hand_is_told_and_restarts_nobody(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    links = tmp_path / "links"
    wheel(links, "by-hand", "1.0")
    wheel(links, "asked-for", "1.0")
    rig = machine(python={"torch": "none", "find_links": [str(links)]})
    rig.doit()
    friend = forge.node("friend")
    custom = rig.comfyui / "custom_nodes"
    subprocess.run(["git", "clone", "-q", friend.url, custom / "friend"], check=True)
    python = rig.environment / "bin" / "python"
    subprocess.run(
        [uv.binary(), "pip", "install", "-q", "--no-index", "--find-links", links,
         "--python", python, "by-hand"],
        check=True, env=os.environ | rig.env,
    )  # fmt: skip
    is_steady(rig)
    plan, status = rig.doit("plan"), rig.doit("status")
    assert plan.planned == set()
    for output in (plan.output, status.output):
        assert f"declare it under custom_nodes: - {{url: {friend.url}, ref: " in output
        assert f"or drop it: rm -r {custom / 'friend'} && doit restart" in output
        assert "declare it (python.packages: [by-hand==1.0])" in output
    assert len(json.loads(rig.doit("status", "--json").output)["drift"]) == 2

    # Another generation in the same environment.
    rig.spec["custom_nodes"] = [{"url": forge.node("plain").url}]
    assert "by-hand" not in rig.doit().output
    assert rig.packages()["by-hand"] == "1.0"
    assert "by-hand==1.0" in rig.doit("status").output, "a proof makes it nobody's own"

    rig.spec["custom_nodes"] = [{"url": forge.node("new", {"requirements.txt": "asked-for"}).url}]
    run = rig.doit()
    assert "by-hand 1.0, installed by hand, isn't in the new environment" in run.output
    assert "by-hand" not in rig.packages()
    assert (rig.comfyui / "custom_nodes" / "friend" / "__init__.py").is_file()
    is_steady(rig)


@pytest.fixture
def replace(tmp_path: Path) -> str:
    """Code that installs another version of a locked package, past what pip would be told."""
    for name, version in (("held", "1.0"), ("held", "0.9"), ("extra", "1.0")):
        wheel(tmp_path / "links", name, version)
    words = [str(uv.binary()), "pip", "install", "-q", "--no-index", "--find-links",
             str(tmp_path / "links"), "held==0.9", "--python"]  # fmt: skip
    return f"subprocess.check_call([*{words!r}, sys.executable], env={{'HOME': here}})\n"


def test_a_pack_that_replaces_a_locked_package_fails_by_name(
    machine: MachineMaker, forge: Forge, tmp_path: Path, replace: str
) -> None:
    pipper = pack(forge, "pipper", replace, {"requirements.txt": "held"})
    rig = machine(
        python={"torch": "none", "find_links": [str(tmp_path / "links")]},
        custom_nodes=[{"url": pipper}],
    )
    run = rig.doit(code=2)
    said = "custom node pipper replaces locked packages while it is loaded: held 1.0 (by 0.9)"
    assert f"✗ validation: {said}" in run.output
    rig.spec["custom_nodes"][0]["optional"] = True
    assert f"! {said}" in rig.doit().output
    assert rig.packages()["held"] == "1.0"
    before = pid(rig)
    again = rig.doit()
    assert (again.executed, pid(rig)) == (set(), before)
    assert rig.packages()["held"] == "1.0", "no instance is started with it"


def test_a_pack_that_replaces_one_only_where_it_serves_goes_round_in_no_circle(
    machine: MachineMaker, forge: Forge, tmp_path: Path, replace: str
) -> None:
    adder = replace.replace("held==0.9", "extra")
    late = f"if '--quick-test-for-ci' not in sys.argv:\n    {replace}"
    rig = machine(
        python={"torch": "none", "find_links": [str(tmp_path / "links")]},
        custom_nodes=[
            {"url": pack(forge, "late", late, {"requirements.txt": "held"})},
            {"url": pack(forge, "adder", adder)},
        ],
    )
    added = "custom node adder installed extra 1.0, which machine.lock doesn't say"
    assert f"! {added}" in rig.doit().output
    is_steady(rig)
    rig.doit("restart")
    is_steady(rig)
    shown = rig.doit("status", code=None).output
    assert "custom node late removed held 1.0, which machine.lock doesn't say" in shown
    assert "custom node late installed held 0.9" in shown
    assert added in shown
