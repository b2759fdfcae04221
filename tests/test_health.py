"""The gate: it opens for a healthy instance, and fails at once for one that died."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from pathlib import Path

from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.rig import SIMULATOR, free_ports
from tests.test_assets import as_of


def test_an_instance_that_dies_at_start_is_noticed_at_once(machine: MachineMaker) -> None:
    rig = machine(instances={"args": ["no-such-argument"]}, health={"timeout": 120})
    begin = time.monotonic()
    run = rig.doit(code=2)
    assert run.failed == {"health:gpu0"}
    assert "comfyui-gpu0 died while it started" in run.output
    assert "unrecognized arguments: no-such-argument" in run.output
    assert time.monotonic() - begin < 60, "it waited for health.timeout"


def test_an_instance_that_never_answers_fails_after_the_time_out(
    machine: MachineMaker, forge: Forge
) -> None:
    text = "import os, time\nif os.environ.get('HANG'):\n    time.sleep(600)\n"
    node = forge.node("slow", {"prestartup_script.py": text})
    rig = machine(custom_nodes=[{"url": node.url}], health={"timeout": 2})
    rig.doit("build")
    rig.spec["instances"]["env"] = {"HANG": "${HANG}"}
    rig.doit("validation")
    run = rig.doit(code=2, HANG="1")
    assert "comfyui-gpu0 isn't healthy after 2 s (health.timeout)" in run.output, run.output
    assert "nothing answers on" in run.output


def test_a_node_that_fails_only_on_the_instance_is_named(
    machine: MachineMaker, forge: Forge
) -> None:
    text = "import os\nif 'COMFYUI_PORT' in os.environ:\n    raise RuntimeError('not here')\n"
    node = forge.repository("picky", {"__init__.py": text + "NODE_CLASS_MAPPINGS = {}\n"})
    rig = machine(custom_nodes=[{"url": node.url}])
    run = rig.doit(code=2)
    assert run.failed == {"health:gpu0"}
    assert "comfyui-gpu0: custom node picky doesn't import: RuntimeError: not here" in run.output


def test_a_node_that_lacks_a_class_only_on_the_instance_is_named(
    machine: MachineMaker, forge: Forge
) -> None:
    text = (
        "import os\n"
        "class Here:\n    INPUT_TYPES = classmethod(lambda cls: {'required': {}})\n"
        "    RETURN_TYPES = ()\n    FUNCTION = 'run'\n"
        "NODE_CLASS_MAPPINGS = {'Here': Here}\n"
        "if 'COMFYUI_PORT' not in os.environ:\n    NODE_CLASS_MAPPINGS['Gone'] = Here\n"
    )
    node = forge.repository("poor", {"__init__.py": text})
    broken = forge.repository("broken", {"__init__.py": "1/0\n"})
    rig = machine(custom_nodes=[{"url": node.url}, {"url": broken.url, "optional": True}])
    run = rig.doit(code=2)
    assert run.output.count("! custom node broken doesn't import") == 1
    assert run.failed == {"health:gpu0"}
    wrong = "comfyui-gpu0: custom node poor lacks Gone, which it had in the build"
    assert wrong in run.output
    rig.spec["custom_nodes"][0]["optional"] = True
    assert "! comfyui-gpu0: custom node poor (optional) lacks Gone" in rig.doit().output


def test_a_hung_instance_is_not_healthy(machine: MachineMaker) -> None:
    rig = machine(health={"timeout": 3})
    rig.doit()
    pid = rig.running()["comfyui-gpu0"].pid
    os.kill(pid, signal.SIGSTOP)
    try:
        run = rig.doit(code=2)
        assert "no answer from" in run.output
    finally:
        os.kill(pid, signal.SIGCONT)
    assert rig.doit().executed == set()


def test_where_the_process_can_not_tell_what_it_loaded_nothing_fails(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    """A ComfyUI of the future, whose loader has another name."""
    comfyui = tmp_path / "future"
    shutil.copytree(SIMULATOR, comfyui)
    for file in (comfyui / "nodes.py", comfyui / "main.py"):
        text = file.read_text().replace("load_custom_node", "load_pack")
        file.write_text(text.replace("init_extra_nodes", "init_packs"))
    rig = machine(
        comfyui={"path": str(comfyui)},
        custom_nodes=[{"url": forge.node("good").url}],
        health={"server": True, "port": free_ports(1)},
    )
    said = rig.doit().output
    assert said.count("! whether good can be loaded is not known") == 1
    assert said.count("! which custom nodes comfyui-gpu0 loaded is not known") == 1
    assert rig.client().get("/object_info")["Good"]
    assert rig.doit("status").code == 0
    assert rig.doit("probe").code == 0
    assert rig.doit().executed == set()


def test_all_node_classes_are_asked_for_once_per_start_whoever_looks(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    """With assets on, each such question begins a scan of all folders."""
    comfyui = as_of("later", tmp_path / "later")
    rig = machine(
        comfyui=comfyui,
        custom_nodes=[{"url": forge.node("good").url}],
        instances={"assets": True},
        health={"server": True, "port": free_ports(1)},
    )
    rig.doit()
    assert rig.doit().executed == set()
    assert rig.doit("status").code == rig.doit("probe").code == 0
    log = (rig.layout.logs / "comfyui-gpu0.log").read_text()
    asked = [line for line in log.splitlines() if "Seeder start (roots=" in line]
    begun = rig.client().get("/api/assets")["simulated_scans"]
    assert begun == len(asked) == 2, "its own at the start, and one of ours"
    assert "Good" in json.loads(rig.layout.classes(0).read_text())["classes"]
