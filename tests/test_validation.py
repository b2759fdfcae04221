"""Validation: a node that doesn't import is found in the build, and nothing starts with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_machine import server
from comfy_machine.engine.run import Run
from comfy_machine.host.comfyui import node_classes
from comfy_machine.host.generations import installed
from comfy_machine.spec import load
from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.rig import SIMULATOR, Rig

pytestmark = pytest.mark.afresh


def look(rig: Rig) -> installed.Installed:
    rig.write()
    machine = load(rig.file, {})
    run = Run(machine)
    return installed.look(
        machine.layout,
        machine.lock,
        server.declared_comfyui(run),
        server.declared_nodes(run),
    )


def test_a_node_that_does_not_import_fails_the_build_with_its_last_line(
    machine: MachineMaker, forge: Forge
) -> None:
    bad = forge.repository("bad", {"__init__.py": "import no_such_module_at_all\n"})
    rig = machine(custom_nodes=[{"url": bad.url}, {"url": forge.node("good").url}])
    run = rig.doit(code=2)
    assert run.failed == {"validation"}
    assert (
        "custom node bad doesn't import: "
        "ModuleNotFoundError: No module named 'no_such_module_at_all'"
    ) in run.output
    assert "instances:start" not in run.executed
    assert rig.running() == {}
    assert not rig.layout.current.exists()


def test_what_runs_goes_on_when_the_next_generation_does_not_validate(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine()
    rig.doit()
    before = rig.running()["comfyui-gpu0"].pid, rig.comfyui
    bad = forge.repository("bad", {"__init__.py": "1/0\n"})
    rig.spec["custom_nodes"] = [{"url": bad.url}]
    assert "ZeroDivisionError" in rig.doit(code=2).output
    assert (rig.running()["comfyui-gpu0"].pid, rig.comfyui) == before


def test_a_node_that_is_added_is_proved_beside_the_old_ones_which_it_may_break(
    machine: MachineMaker, forge: Forge
) -> None:
    old = forge.node("old", {"inner.py": "import colorsys\n"})
    old.commit({"__init__.py": "from . import inner\nNODE_CLASS_MAPPINGS = {}\n"})
    rig = machine(custom_nodes=[{"url": old.url}])
    rig.doit("build")
    before = rig.layout.current.resolve()
    breaks: dict[str, str | None] = {
        "prestartup_script.py": "import sys\nsys.modules['colorsys'] = None\n"
    }
    rig.spec["custom_nodes"].append({"url": forge.node("added", breaks).url})
    said = rig.doit("build", code=2).output
    assert "custom node old doesn't import: ModuleNotFoundError: import of colorsys halted" in said
    assert rig.layout.current.resolve() == before


def test_an_optional_node_that_does_not_import_is_a_warning_of_every_run(
    machine: MachineMaker, forge: Forge
) -> None:
    bad = forge.repository("bad", {"__init__.py": "1/0\n"})
    local = forge.node("local").folder
    rig = machine(custom_nodes=[{"url": bad.url, "optional": True}, {"path": str(local)}])
    for executed in (True, False):
        run = rig.doit("build")
        assert ("validation" in run.executed) == executed
        assert "! custom node bad doesn't import: ZeroDivisionError" in run.output
    found = look(rig)
    assert (found.ok, found.reason) == (True, "")
    assert found.packages.installed == found.packages.wanted > 1
    assert (found.comfyui.commit, found.comfyui.imported) == (found.comfyui.wanted, True)
    assert found.degraded == (
        "custom node bad: it doesn't import: ZeroDivisionError: division by zero",
    )
    assert found.nodes[0].commit == found.nodes[0].wanted == bad.git("rev-parse", "HEAD")
    assert [part.ok for part in found.nodes] == [False, True]
    bad.commit({"__init__.py": "NODE_CLASS_MAPPINGS = {}\n"}, tag="mended")
    rig.spec["custom_nodes"][0]["ref"] = "mended"
    assert "!" not in rig.doit("build").output


def test_a_node_that_ends_the_process_is_found_by_name(machine: MachineMaker, forge: Forge) -> None:
    bad = forge.repository("bad", {"__init__.py": "import sys\nsys.exit(7)\n"})
    rig = machine(custom_nodes=[{"url": bad.url}, {"url": forge.node("good").url}])
    run = rig.doit("build", code=2)
    assert "custom node bad ends ComfyUI (exit code 7)" in run.output


def test_an_instance_starts_without_an_optional_node_that_would_end_it(
    machine: MachineMaker, forge: Forge
) -> None:
    bad = forge.repository("bad", {"__init__.py": "import sys\nsys.exit(7)\n"})
    rig = machine(
        custom_nodes=[{"url": bad.url, "optional": True}, {"url": forge.node("good").url}]
    )
    assert "! custom node bad ends ComfyUI (exit code 7)" in rig.doit().output
    info = rig.client().get("/object_info")
    assert info["Good"]
    classes = node_classes.expected(rig.layout.current.resolve())
    assert classes["good"] == ("Good",)
    assert "bad" not in classes
    assert node_classes.missing(classes, info) == {}


def test_a_node_that_needs_a_variable_of_run_time_is_proved_by_up(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("needy")
    node.commit({"prestartup_script.py": "import os\nos.environ['RUN_TIME_TOKEN']\n"})
    rig = machine(
        custom_nodes=[{"url": node.url}], instances={"env": {"RUN_TIME_TOKEN": "${RUN_TIME_TOKEN}"}}
    )
    built = rig.doit("build")
    assert "! custom node needy can't be validated here, only by `doit up`" in built.output
    assert "validation" in rig.doit(RUN_TIME_TOKEN="t").executed
    assert rig.doit(RUN_TIME_TOKEN="t").executed == set()


CUDA = """\
import sys, types
torch, cuda = types.ModuleType("torch"), types.ModuleType("torch.cuda")
exec("def _lazy_init(): raise RuntimeError('any words')", cuda.__dict__)
cuda._lazy_init()
"""


@pytest.mark.parametrize(
    "source",
    [CUDA, "raise ImportError('libcuda.so.1: cannot open shared object file: No such file')\n"],
)
def test_a_node_that_needs_a_gpu_is_unproved_where_none_is(
    machine: MachineMaker, forge: Forge, source: str
) -> None:
    node = forge.repository("cuda", {"__init__.py": source})
    rig = machine(custom_nodes=[{"url": node.url}], instances={"cpu_only": False})
    assert "custom node cuda can't be validated here" in rig.doit("build").output
    rig.spec["instances"]["cpu_only"] = True
    assert "custom node cuda doesn't import" in rig.doit("build", code=2).output


def test_words_about_a_gpu_prove_nothing(machine: MachineMaker, forge: Forge) -> None:
    text = "raise RuntimeError('Found no NVIDIA driver on your system.')\n"
    node = forge.repository("says", {"__init__.py": text})
    rig = machine(custom_nodes=[{"url": node.url}], instances={"cpu_only": False})
    assert "custom node says doesn't import" in rig.doit("build", code=2).output


def test_a_node_that_hangs_is_named_left_out_if_optional_and_not_waited_for_again(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    note = tmp_path / "tried"
    tried = f"open('{note}', 'a').write('x')\nimport time\ntime.sleep(3000)\n"
    hangs = forge.repository("hangs", {"__init__.py": tried})
    comfyui = {"path": str(SIMULATOR), "proof_timeout": 15}
    rig = machine(comfyui=comfyui, custom_nodes=[{"url": hangs.url}])
    said = "custom node hangs didn't finish its import in 15 s (comfyui.proof_timeout)"
    assert said in rig.doit("build", code=2).output
    rig.spec["custom_nodes"] = [
        {"url": hangs.url, "optional": True}, {"url": forge.node("good").url},
    ]  # fmt: skip
    assert f"! {said}" in rig.doit().output
    assert note.read_text() == "x", "tried once, by the first proof"
    assert rig.client().get("/object_info")["Good"]
    assert rig.doit().executed == set()
    (rig.layout.receipts / "hangs.json").write_text('{"nodes": {"hangs": 5}}')
    hangs.commit({"__init__.py": "NODE_CLASS_MAPPINGS = {}\n"}, tag="mended")
    rig.spec["custom_nodes"][0]["ref"] = "mended"
    assert "!" not in rig.doit("build").output


def test_the_build_writes_the_bytecode_that_a_start_needs(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha").url}])
    rig.doit("build", PYTHONDONTWRITEBYTECODE="1")
    assert list((rig.comfyui / "custom_nodes" / "alpha" / "__pycache__").glob("*.pyc"))
    assert list(rig.environment.glob("lib/python*/site-packages/aiohttp/__pycache__/*.pyc"))


def test_validation_leaves_the_folders_of_the_instances_alone(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit("build")
    assert not (rig.comfyui / "temp").exists()
    assert not list((rig.layout.scratch / "validation").iterdir())
