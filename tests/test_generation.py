"""Generations: assembled beside what runs, complete, carrying over what was written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.rig import SIMULATOR, snapshot

pytestmark = pytest.mark.afresh


def test_no_file_changes_under_what_runs_while_everything_is_upgraded(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("alpha", {"requirements.txt": "packaging==24.0"})
    rig = machine(custom_nodes=[{"url": node.url}])
    rig.doit("build")
    generation, environment = rig.comfyui.parent, rig.environment
    before = snapshot(generation), snapshot(environment)
    node.commit({"requirements.txt": "packaging==24.1", "more.py": ""}, tag="v2")
    rig.spec["custom_nodes"] = [{"url": node.url, "ref": "v2"}, {"url": forge.node("beta").url}]
    rig.doit("build")
    assert rig.comfyui.parent != generation
    assert (snapshot(generation), snapshot(environment)) == before


def test_going_back_to_an_earlier_spec_reuses_its_generation(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine()
    rig.doit("build")
    first = rig.comfyui
    rig.spec["custom_nodes"] = [{"url": forge.node("alpha").url}]
    rig.doit("build")
    assert rig.comfyui != first
    rig.spec["custom_nodes"] = []
    rig.doit("build")
    assert rig.comfyui == first


def test_what_comfyui_and_nodes_wrote_is_carried_over(machine: MachineMaker, forge: Forge) -> None:
    node = forge.node("alpha", {".gitignore": "cache/\n"})
    rig = machine(custom_nodes=[{"url": node.url}])
    rig.doit("build")
    custom = rig.comfyui / "custom_nodes"
    (custom / "alpha" / "cache").mkdir()
    (custom / "alpha" / "cache" / "weights.bin").write_text("big")
    (custom / "alpha" / "settings.json").write_text("{}")
    (custom / "alpha" / ".env").write_text("SECRET=1")
    (rig.comfyui / "styles.csv").write_text("style")
    (custom / "by_hand").mkdir()
    (custom / "by_hand" / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}")
    node.commit({"more.py": ""}, tag="v2")
    rig.spec["custom_nodes"][0]["ref"] = "v2"
    rig.doit("build")
    moved = rig.comfyui / "custom_nodes"
    assert moved != custom
    assert (moved / "alpha" / "more.py").is_file()
    assert (moved / "alpha" / "cache" / "weights.bin").read_text() == "big"
    assert (moved / "alpha" / "settings.json").is_file()
    assert not (moved / "alpha" / ".env").exists()
    assert (rig.comfyui / "styles.csv").is_file()
    assert (moved / "by_hand" / "__init__.py").is_file()


def test_a_removed_nodes_own_files_are_kept_aside(machine: MachineMaker, forge: Forge) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha").url}])
    rig.doit("build")
    (rig.comfyui / "custom_nodes" / "alpha" / "notes.txt").write_text("mine")
    rig.spec["custom_nodes"] = []
    rig.doit("build")
    assert not (rig.comfyui / "custom_nodes" / "alpha").exists()
    assert (rig.layout.left / "alpha" / "notes.txt").read_text() == "mine"


def test_a_tracked_file_edited_by_hand_warns_and_then_stops_the_move(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("alpha")
    rig = machine(custom_nodes=[{"url": node.url}])
    rig.doit("build")
    edited = rig.comfyui / "custom_nodes" / "alpha" / "__init__.py"
    edited.write_text(edited.read_text() + "# mine\n")
    run = rig.doit("build")
    assert run.executed == set()
    assert f"! __init__.py in {edited.parent} was edited by hand" in run.output
    node.commit({"more.py": ""}, tag="v2")
    rig.spec["custom_nodes"][0]["ref"] = "v2"
    stopped = rig.doit("build", code=2)
    assert stopped.failed == {"generation:assemble"}
    assert f"git -C {edited.parent} checkout -- __init__.py" in stopped.output
    assert "# mine" in edited.read_text()


def test_a_touched_but_equal_file_is_no_edit(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit("build")
    os.utime(rig.comfyui / "main.py")
    assert "edited" not in rig.doit("build").output


def test_install_scripts_run_once_per_commit_and_environment(
    machine: MachineMaker, forge: Forge
) -> None:
    script = "open('count.txt', 'a').write('x')"
    node = forge.node("alpha", {"install.py": script})
    rig = machine(custom_nodes=[{"url": node.url, "script": "echo y >> said.txt"}])
    rig.doit("build")
    rig.spec["custom_nodes"].append({"url": forge.node("beta").url})
    rig.doit("build")
    folder = rig.comfyui / "custom_nodes" / "alpha"
    assert (folder / "count.txt").read_text() == "x"
    assert (folder / "said.txt").read_text() == "y\n"


def test_an_install_script_uses_the_new_environment(machine: MachineMaker, forge: Forge) -> None:
    script = (
        "import subprocess, sys\n"
        "subprocess.check_call([sys.executable, '-m', 'pip', 'install', '-q', 'toml'])\n"
    )
    rig = machine(custom_nodes=[{"url": forge.node("alpha", {"install.py": script}).url}])
    rig.doit("build")
    assert list(rig.environment.glob("lib/python*/site-packages/toml-*.dist-info"))
    assert rig.doit("build").executed == set()


def test_a_script_that_fails_fails_its_node(machine: MachineMaker, forge: Forge) -> None:
    node = forge.node("alpha", {"install.py": "raise SystemExit('no compiler here')"})
    rig = machine(custom_nodes=[{"url": node.url}])
    run = rig.doit("build", code=2)
    assert run.failed == {"generation:scripts"}
    assert "the script of custom node alpha failed" in run.output
    assert "no compiler here" in run.output
    assert not rig.layout.current.exists()
    rig.spec["custom_nodes"][0]["optional"] = True
    assert "! the script of custom node alpha failed" in rig.doit("build").output


def test_a_script_that_hangs_is_ended_with_what_it_started(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("alpha")
    rig = machine(
        custom_nodes=[{"url": node.url, "script": "sleep 300 & wait", "script_timeout": 1}]
    )
    assert "ran longer than 1 s" in rig.doit("build", code=2).output


def test_a_local_comfyui_is_copied_and_never_written_into(machine: MachineMaker) -> None:
    before = snapshot(SIMULATOR)
    rig = machine()
    rig.doit("build")
    assert snapshot(SIMULATOR) == before
    assert not (rig.comfyui / "main.py").samefile(SIMULATOR / "main.py")


def test_a_missing_tracked_file_is_damage_and_a_new_generation_is_made(
    machine: MachineMaker,
) -> None:
    rig = machine()
    rig.doit("build")
    damaged = rig.comfyui
    (damaged / "server.py").unlink()
    rig.doit("build")
    assert rig.comfyui != damaged
    assert (rig.comfyui / "server.py").is_file()
    assert not (damaged / "server.py").exists()


def test_models_written_into_comfyui_outlive_the_generation(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine()
    rig.doit("build")
    (rig.comfyui / "models" / "downloaded").mkdir()
    (rig.comfyui / "models" / "downloaded" / "x.pth").write_text("x")
    rig.spec["custom_nodes"] = [{"url": forge.node("alpha").url}]
    rig.doit("build")
    assert (rig.comfyui / "models" / "downloaded" / "x.pth").read_text() == "x"
    assert (rig.workspace / "shared" / "models" / "downloaded" / "x.pth").is_file()


def test_what_a_script_wrote_is_there_in_whichever_generation_becomes_current(
    machine: MachineMaker, forge: Forge
) -> None:
    text = "import os\nopen(os.path.join(os.path.dirname(__file__), 'built.txt')).read()\n"
    alpha = forge.repository(
        "alpha",
        {
            "__init__.py": text + "NODE_CLASS_MAPPINGS = {}\n",
            "install.py": "open('built.txt', 'w').close()",
        },
    )
    beta = forge.repository("beta", {"__init__.py": "1/0\n"})
    rig = machine(custom_nodes=[{"url": alpha.url}, {"url": beta.url}])
    assert rig.doit("build", code=2).failed == {"validation"}
    beta.commit({"__init__.py": "NODE_CLASS_MAPPINGS = {}\n"}, tag="fixed")
    rig.spec["custom_nodes"][1]["ref"] = "fixed"
    rig.doit("build")
    assert (rig.comfyui / "custom_nodes" / "alpha" / "built.txt").is_file()
    assert rig.doit("build").executed == set()


def test_a_script_that_writes_into_a_package_changes_no_other_environment(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    node = forge.node("plain", {"requirements.txt": "toml"})
    rig = machine(custom_nodes=[{"url": node.url}])
    # Should this fail, the caller's own cache must not be what is written into.
    rig.env["UV_CACHE_DIR"] = str(tmp_path / "uv")
    rig.doit("build")
    before = rig.environment
    script = "import toml\nopen(toml.__file__, 'a').write('# patched\\n')\n"
    patcher = forge.node("patcher", {"install.py": script})
    rig.spec["custom_nodes"].append({"url": patcher.url})
    rig.doit("build")
    (ours,) = rig.environment.glob("lib/python*/site-packages/toml/__init__.py")
    (theirs,) = before.glob("lib/python*/site-packages/toml/__init__.py")
    assert "# patched" in ours.read_text()
    assert "# patched" not in theirs.read_text()


def test_a_node_named_like_a_folder_that_comfyui_tracks_settles(
    machine: MachineMaker, forge: Forge
) -> None:
    files: dict[str, str | None] = {
        str(path.relative_to(SIMULATOR)): path.read_text()
        for path in SIMULATOR.rglob("*")
        if path.is_file() and path.suffix in (".py", ".txt", ".example")
    }
    comfyui = forge.repository("ComfyUI", {**files, "custom_nodes/foo/extra.py": "1\n"})
    rig = machine(comfyui={"repo": comfyui.url}, custom_nodes=[{"url": forge.node("foo").url}])
    rig.doit("build")
    assert rig.doit("build").executed == set()


def test_receipts_of_the_wrong_shape_are_done_again(machine: MachineMaker, forge: Forge) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha", {"install.py": ""}).url}])
    rig.doit("build")
    receipts = sorted(rig.layout.machine.glob("*/*.json"))
    odd, deep = '{"digest": "x", "heads": 5, "nodes": 5}', "[" * 100_000
    for damaged, content in (*(([receipt], odd) for receipt in receipts), (receipts, deep)):
        for receipt in damaged:
            receipt.write_text(content)
        run = rig.doit("build", code=None)
        assert run.code == 0, f"{receipt.name} {content[:20]}: {run.output}"
        assert "Traceback" not in run.output
    assert rig.doit("build").executed == set()


def test_a_failed_optional_script_is_not_tried_again_in_what_runs(
    machine: MachineMaker, forge: Forge
) -> None:
    script = "open('tries.txt', 'a').write('x')\nraise SystemExit('no')\n"
    node = forge.node("alpha", {"install.py": script})
    rig = machine(custom_nodes=[{"url": node.url, "optional": True}])
    rig.doit()
    tries = rig.comfyui / "custom_nodes" / "alpha" / "tries.txt"
    run = rig.doit()
    assert run.executed == set()
    assert "! the script of custom node alpha failed" in run.output
    assert tries.read_text() == "x"
    rig.doit("down")
    rig.doit("build")
    assert tries.read_text() == "xx"
