"""Damage that no run comes across: verify finds it, repair removes it, doit makes it again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from comfy_machine.host.generations import manifest
from comfy_machine.host.pm2 import pm2
from tests.conftest import MachineMaker
from tests.forge import Forge


def spoil(path: Path) -> None:
    """Other content, with the size and time of before."""
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_verify_finds_is_mended_by_repair_and_doit(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha", {"more.py": "1\n"}).url}])
    rig.doit()
    pid, generation = rig.running()["comfyui-gpu0"].pid, rig.comfyui.parent
    (source,) = rig.layout.sources.glob("alpha@*")
    spoil(source / "more.py")
    spoil(generation / "ComfyUI" / "custom_nodes" / "alpha" / "more.py")
    compiled = next((rig.environment / "lib").rglob("yarl/__pycache__/*.pyc"))
    half = compiled.read_bytes()[:200]
    # Tests share environments by hard links.
    compiled.unlink()
    compiled.write_bytes(half)
    assert rig.doit().executed == set(), "nothing looks at these"
    found = rig.doit("verify", code=1).output
    assert f"✗ {source}: more.py is not as in its commit" in found
    assert "alpha/more.py isn't what was installed" in found
    assert f"✗ {compiled} can't be loaded" in found
    assert "doit repair" in found
    repaired = rig.doit("repair").output
    assert f"{source} is removed" in repaired
    assert f"{generation.name} is in use" in repaired
    assert rig.running()["comfyui-gpu0"].pid == pid
    assert not compiled.exists()
    rig.doit()
    assert rig.comfyui.parent.name == f"{generation.name}.2"
    assert (rig.comfyui / "custom_nodes" / "alpha" / "more.py").read_text() == "1\n"
    assert not manifest.edited(rig.comfyui.parent)
    assert "✗" not in rig.doit("verify").output
    assert "nothing is damaged" in rig.doit("repair").output
    assert rig.doit().executed == set()
    compiled = next((rig.environment / "lib").rglob("aiohttp/__pycache__/web.*.pyc"))
    half = compiled.read_bytes()[:200]
    compiled.unlink()
    compiled.write_bytes(half)
    assert f"{compiled} is damaged: doit repair" in rig.doit("restart", code=1).output
    rig.doit("repair")
    rig.doit()
    assert rig.healthy()


def test_a_damaged_source_is_not_copied_into_a_generation(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha", {"more.py": "1\n"}).url}])
    rig.doit("build")
    (source,) = rig.layout.sources.glob("alpha@*")
    (source / "more.py").write_text("")
    rig.spec["custom_nodes"].append({"url": forge.node("beta").url})
    stopped = rig.doit("build", code=2)
    assert stopped.failed == {"generation:assemble"}
    assert "more.py is not as in its commit): doit repair removes it" in stopped.output
    rig.doit("repair")
    rig.doit("build")
    assert (rig.comfyui / "custom_nodes" / "alpha" / "more.py").read_text() == "1\n"


def test_what_was_refused_for_its_damage_is_tried_again_after_repair(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine()
    rig.doit()
    damaged = rig.comfyui
    rig.spec["custom_nodes"] = [{"url": forge.node("alpha", {"requirements.txt": "toml"}).url}]
    rig.doit()
    rig.spec["custom_nodes"] = []
    library = (damaged.parent / "environment" / "lib").resolve()
    compiled = next(library.rglob("yarl/__pycache__/_url.*.pyc"))
    half = compiled.read_bytes()[:200]
    compiled.unlink()
    compiled.write_bytes(half)
    refused = rig.doit(code=2).output
    assert f"{compiled} is damaged: doit repair; the machine is back on generation 2" in refused
    assert "doit tries it again" in rig.doit("repair").output
    rig.doit()
    assert rig.comfyui == damaged
    assert rig.healthy()


def test_what_has_lost_its_type_or_mode_is_put_right(machine: MachineMaker, forge: Forge) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha").url}])
    rig.doit("build")
    layout = rig.layout
    nodes, key = layout.receipts / "nodes", layout.state / "fingerprint.key"
    (nodes / "alpha.json").unlink()
    nodes.rmdir()
    nodes.symlink_to("nodes")
    key.mkdir()
    (key / "note.txt").write_text("somebody's")
    last = layout.instance(0) / "databases" / "last"
    last.parent.mkdir(parents=True)
    last.write_text("half a link")
    stopped = rig.doit("build", code=2).output
    assert "doit repair" in stopped
    repaired = rig.doit("repair").output
    assert f"{nodes} is no folder: removed" in repaired
    assert f"{key} is no file: moved to {layout.left / 'repaired' / key.name}" in repaired
    assert (layout.left / "repaired" / key.name / "note.txt").read_text() == "somebody's"
    assert not last.exists()
    rig.doit("build")
    assert rig.doit("build").executed == set()
    layout.current.unlink()
    layout.current.touch()
    assert "doit repair moves it away" in rig.doit("build", code=2).output
    assert f"{layout.current} is no link: moved to" in rig.doit("repair").output
    rig.doit("build")
    assert rig.doit("build").executed == set()


def test_a_damaged_pm2_is_no_fault_of_the_generation_that_it_was_to_start(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha").url}])
    rig.doit()
    own = pm2.folder(rig.layout)
    installed = own.resolve()
    own.unlink()
    shutil.copytree(installed, own, symlinks=True)
    pm2.script(rig.layout).write_text("")
    rig.spec["custom_nodes"].append({"url": forge.node("beta").url})
    assert "isn't what npm installed: doit repair" in rig.doit(code=2).output
    assert rig.healthy()
    rig.doit("repair")
    rig.doit()
    assert (rig.comfyui / "custom_nodes" / "beta").is_dir()
    assert rig.healthy()


def test_a_failed_start_finds_what_no_run_looks_at(machine: MachineMaker, forge: Forge) -> None:
    rig = machine()
    rig.doit()
    damaged = rig.comfyui
    rig.spec["custom_nodes"] = [{"url": forge.node("alpha").url}]
    rig.doit()
    rig.spec["custom_nodes"] = []
    spoil(damaged / "main.py")
    refused = rig.doit(code=2).output
    assert "ComfyUI/main.py isn't what was installed: doit repair; the machine is back" in refused
    rig.doit("repair")
    rig.doit()
    assert rig.comfyui == damaged
    assert rig.healthy()


def test_what_is_no_file_any_more_is_replaced_and_an_edit_that_ends_it_is_named(
    machine: MachineMaker,
) -> None:
    rig = machine()
    rig.doit()
    main = rig.comfyui / "main.py"
    main.unlink()
    main.symlink_to("main.py")
    rig.doit()
    assert rig.healthy()
    main = rig.comfyui / "main.py"
    assert main.is_file()
    main.write_text("raise SystemExit(5)\n")
    said = rig.doit("restart", code=1).output
    assert "it exited with code 5" in said
    drop = re.search(r"edited by hand: (git -C \S+ checkout -- main\.py) drops that", said)
    assert drop, said
    subprocess.run(drop[1], shell=True, check=True)
    rig.doit()
    assert rig.healthy()
