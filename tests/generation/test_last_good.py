"""The last good generation: gone back to when the new one isn't healthy, or by hand."""

from __future__ import annotations

import hmac
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from comfy_machine.generation import last_good
from comfy_machine.host.system import thread_pool
from comfy_machine.spec import load
from comfy_machine.spec.layout import Layout
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.forge import Forge, Repository
from tests.rig import Rig

HEALTH = {"health:gpu0", "health:gpu1"}
DIES = "import os, sys\nif 'COMFYUI_PORT' in os.environ:\n    sys.exit('no luck today')\n"
"""A node that a build finds in order, and that ends an instance."""


def pids(rig: Rig) -> dict[str, int]:
    return {name: app.pid for name, app in rig.running().items()}


def generations(rig: Rig) -> set[str]:
    """Those that instances run on."""
    return {
        psutil.Process(app.pid).cwd().split("/")[-2]
        for name, app in rig.running().items()
        if name.startswith("comfyui-gpu")
    }


def update(rig: Rig, node: Repository, text: str, tag: str) -> None:
    node.commit({"prestartup_script.py": text}, tag=tag)
    rig.spec["custom_nodes"][0]["ref"] = tag


@pytest.fixture
def node(forge: Forge) -> Repository:
    node = forge.node("alpha")
    node.git("tag", "v1")
    return node


@pytest.fixture
def rig(machine: MachineMaker, node: Repository) -> Rig:
    """Two instances on a good generation."""
    rig = machine(custom_nodes=[{"url": node.url, "ref": "v1"}], instances={"gpus": 2})
    rig.doit()
    return rig


def test_an_upgrade_that_is_not_healthy_is_left_for_the_generation_before(
    rig: Rig, node: Repository
) -> None:
    good, before = generations(rig), pids(rig)
    update(rig, node, DIES, "v2")
    run = rig.doit(code=2)
    assert run.failed == {"instances:start"}
    assert "comfyui-gpu0 died while it started: no luck today" in run.output
    assert "the machine is back on generation 1" in run.output
    assert generations(rig) == good
    assert pids(rig)["comfyui-gpu1"] == before["comfyui-gpu1"], "it was never touched"
    assert rig.healthy(0)
    assert {rig.comfyui.parent.name} == good
    assert "v2" in rig.file.read_text()
    assert node.git("rev-parse", "v2") in rig.lock_file.read_text()


def test_an_upgrade_with_a_new_node_that_ends_instances_is_left_without_it(
    rig: Rig, forge: Forge
) -> None:
    good = generations(rig)
    beta = forge.node("beta", {"prestartup_script.py": DIES})
    rig.spec["custom_nodes"].append({"url": beta.url})
    run = rig.doit(code=2)
    assert "going back failed" not in run.output
    assert "the machine is back on generation 1" in run.output
    assert generations(rig) == good
    assert rig.healthy(0)


def test_a_refused_generation_is_not_tried_again_until_something_changes(
    rig: Rig, node: Repository
) -> None:
    good = generations(rig)
    update(rig, node, DIES, "v2")
    rig.doit(code=2)
    back = pids(rig)

    again = rig.doit(code=2)
    assert again.executed == set()
    assert again.failed == {"collection"}
    assert "was refused" in again.output
    assert "no luck today" in again.output
    assert "doit force=1" in again.output
    assert pids(rig) == back
    assert rig.doit("plan", code=2).planned == set()

    shown = rig.doit("status").output
    assert "no luck today" in " ".join(shown.split())
    document = json.loads(rig.doit("status", "--json").output)
    assert document["machine"]["code"] == "BehindMachineFile"
    assert document["behind"]["back_on"] == min(good)
    assert document["behind"]["number"] == 1
    assert "generation 1 runs instead" in " ".join(shown.split())
    assert "no luck today" in document["behind"]["reason"]

    forced = rig.doit("force=1", code=2)
    assert forced.failed == {"instances:start"}, "it was tried again"
    assert "comfyui-gpu0 died while it started: no luck today" in forced.output
    assert generations(rig) == good

    update(rig, node, "", "v3")
    rig.doit()
    assert generations(rig) != good
    assert rig.doit().executed == set()
    assert "behind" not in json.loads(rig.doit("status", "--json").output)


def test_a_second_try_that_is_killed_leaves_the_machine_where_it_was(
    rig: Rig, node: Repository
) -> None:
    good = generations(rig)
    update(rig, node, DIES, "v2")
    rig.doit(code=2)
    with rig.going("force=1") as forced:
        until(lambda: {rig.comfyui.parent.name} != good, 60, "the link to move")
        forced.kill()
    run = rig.doit(code=2)
    assert run.failed == {"collection"}
    assert generations(rig) == {rig.comfyui.parent.name} == good
    assert rig.healthy(0)
    assert rig.healthy(1)


def test_while_it_is_behind_the_machine_comes_up_on_the_last_good_generation(
    rig: Rig, node: Repository
) -> None:
    good = generations(rig)
    update(rig, node, DIES, "v2")
    rig.doit(code=2)
    rig.doit("down")
    run = rig.doit(code=2)
    assert {"instances:start", "health:gpu0", "health:gpu1"} <= run.executed
    assert run.failed == {"collection"}
    assert generations(rig) == good


def test_arguments_that_instances_die_of_are_left_too(rig: Rig) -> None:
    before = pids(rig)
    rig.spec["instances"]["args"] = ["no-such-argument"]
    run = rig.doit(code=2)
    assert "unrecognized arguments: no-such-argument" in run.output
    assert pids(rig)["comfyui-gpu1"] == before["comfyui-gpu1"]
    assert "no-such-argument" not in psutil.Process(pids(rig)["comfyui-gpu0"]).cmdline()
    rig.spec["instances"]["args"] = []
    rig.doit()
    assert rig.doit().executed == set()


def test_when_a_later_instance_fails_those_before_it_go_back_as_well(
    rig: Rig, node: Repository
) -> None:
    good = generations(rig)
    only_second = f"import os\nif os.environ.get('COMFYUI_PORT') == '{rig.port(1)}':\n    "
    update(rig, node, only_second + "raise SystemExit('not on this one')\n", "v2")
    run = rig.doit(code=2)
    assert "comfyui-gpu1 died while it started: not on this one" in run.output
    assert generations(rig) == good
    assert rig.healthy(0)
    assert rig.healthy(1)


def test_workers_stay_or_go_back_with_their_instance(rig: Rig, node: Repository) -> None:
    rig.spec["workers"] = [{"name": "fetch", "command": ["sleep", "600"]}]
    rig.doit()
    before = pids(rig)
    update(rig, node, DIES, "v2")
    rig.spec["workers"][0]["env"] = {"NEW": "yes"}
    rig.doit(code=2)
    assert pids(rig)["fetch-gpu1"] == before["fetch-gpu1"]
    assert "NEW" not in psutil.Process(pids(rig)["fetch-gpu0"]).environ()


def test_a_first_boot_that_fails_has_nothing_to_go_back_to(
    machine: MachineMaker, node: Repository
) -> None:
    rig = machine(custom_nodes=[{"url": node.url, "ref": "v1"}])
    update(rig, node, DIES, "v2")
    assert rig.doit(code=2).failed == {"health:gpu0"}
    assert not rig.layout.refused.exists()
    assert rig.doit(code=2).failed == {"health:gpu0"}, "every run tries again"


def test_doit_rollback_goes_back_until_machine_yaml_changes(rig: Rig, node: Repository) -> None:
    first = generations(rig)
    update(rig, node, "", "v2")
    rig.doit()
    second = generations(rig)
    files = rig.file.read_text(), rig.lock_file.read_text()

    said = rig.doit("rollback").output
    assert said.splitlines()[-1].startswith("back on generation 1 (ComfyUI ")
    assert generations(rig) == first
    assert (rig.file.read_text(), rig.lock_file.read_text()) == files
    behind = json.loads(rig.doit("status", "--json").output)["behind"]
    assert behind["back_on"] == min(first)
    run = rig.doit(code=2)
    assert run.executed == set()
    assert "was left by hand" in run.output
    assert "was left by hand" in rig.doit("rollback", code=1).output
    assert generations(rig) == first

    forward = rig.doit("force=1")
    assert generations(rig) == second
    assert forward.executed == {"validation", "instances:start", *HEALTH, "collection"}
    assert rig.layout.log("validation").read_text() == "", "no node is tried again"
    assert rig.doit().executed == set()


def test_each_doit_rollback_goes_one_further_back(rig: Rig, node: Repository) -> None:
    seen = [generations(rig)]
    for tag in ("v2", "v3"):
        update(rig, node, "", tag)
        rig.doit()
        seen.append(generations(rig))
    rig.doit("rollback")
    assert generations(rig) == seen[1]
    rig.doit("rollback")
    assert generations(rig) == seen[0]
    said = rig.doit("rollback", code=1).output
    assert "no good generation to go back to" in said
    assert "doit force=1" in said
    rig.doit("force=1")
    assert generations(rig) == seen[2]


def test_doit_rollback_to_a_number_goes_straight_there_and_also_forward(
    rig: Rig, node: Repository
) -> None:
    seen = [generations(rig)]
    for tag in ("v2", "v3"):
        update(rig, node, "", tag)
        rig.doit()
        seen.append(generations(rig))
    rig.doit("rollback", "1")
    assert generations(rig) == seen[0]
    assert "no good generation" in rig.doit("rollback", code=1).output, "nothing is older"
    rig.doit("rollback", "2")
    assert generations(rig) == seen[1]
    said = rig.doit("rollback", "3", code=1).output
    assert said == "rollback: generation 3 is what machine.yaml asks for: doit force=1\n"
    rig.doit("rollback")
    assert generations(rig) == seen[0], "without a number, one older"
    rig.doit("force=1")
    assert generations(rig) == seen[2]


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["1"], 1, "rollback: generation 1 is the current one already"),
        (["7"], 1, "rollback: no generation 7 to go back to (known: 1): see doit generations"),
        (["x"], 3, "ERROR: rollback takes one number of doit generations, not x"),
        (["1", "2"], 3, "ERROR: rollback takes one number of doit generations, not 1 2"),
    ],
)
def test_a_wrong_number_is_one_line_and_changes_nothing(
    rig: Rig, words: list[str], code: int, line: str
) -> None:
    before = pids(rig)
    assert rig.doit("rollback", *words, code=code).output.strip() == line
    assert pids(rig) == before
    assert not rig.layout.refused.exists()


def test_doit_rollback_with_nothing_to_go_back_to_says_so(rig: Rig) -> None:
    assert "no good generation to go back to" in rig.doit("rollback", code=1).output
    assert rig.doit().executed == set()


def test_the_noted_good_may_be_lost_and_comes_again(rig: Rig) -> None:
    shutil.rmtree(rig.layout.state / "good")
    assert rig.doit().executed == {"collection"}
    assert rig.doit().executed == set()


def test_threads_that_need_the_key_at_once_have_the_same(tmp_path: Path) -> None:
    layout, start = Layout(tmp_path), threading.Barrier(8)

    def hashed(_: int) -> str:
        start.wait()
        return last_good.keyed_hash(layout, "secret")

    found = {result for _, result in thread_pool.each(hashed, range(8), 8)}
    assert found == {last_good.keyed_hash(layout, "secret")}


def test_a_key_that_a_power_cut_emptied_is_made_anew(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    first = last_good.keyed_hash(layout, "secret")
    key = layout.state / "fingerprint.key"
    key.write_text("")
    assert last_good.keyed_hash(layout, "secret") not in (
        first,
        hmac.new(b"", b"secret", "sha256").hexdigest(),
    )
    assert len(key.read_text()) == last_good.KEY_LENGTH


def test_fields_that_came_later_make_no_other_request_with_their_defaults(tmp_path: Path) -> None:
    """Or a new version of this project would end a refusal."""
    file = tmp_path / "machine.yaml"
    later = {"cwd": "srv", "per": "machine", "stop_timeout": 5, "restart_with_instance": False}

    def request(worker: dict[str, object], **more: object) -> dict[str, Any]:
        spec = {"workspace": "ws", "comfyui": {}, "workers": [worker], **more}
        file.write_text(yaml.safe_dump(spec))
        machine = load(file, {})
        found: dict[str, Any] = json.loads(
            machine.model_dump_json(exclude=last_good._irrelevant(machine))
        )
        return found

    plain = request({"name": "w", "command": ["x"]})
    assert plain["workers"] == [{"name": "w", "command": ["x"], "env": {}}]
    assert "machine_id" not in plain
    assert "jobs" not in plain
    assert not {"drain_settle", "user"} & plain["instances"].keys()
    assert request({"name": "w", "command": ["x"], **later})["workers"][0].keys() > later.keys()
    assert request({"name": "w", "command": ["x"]}, machine_id="a")["machine_id"] == "a"
    assert request({"name": "w", "command": ["x"]}, jobs=True)["jobs"]["attempts"] == 3
