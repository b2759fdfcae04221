"""machine.lock: complete after a run, obeyed by the next, moved only where something forces it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.rig import SIMULATOR, Rig, snapshot

pytestmark = pytest.mark.afresh


def lock_of(rig: Rig) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(rig.lock_file.read_text())
    return content


def pinned(rig: Rig, name: str) -> str:
    return str(lock_of(rig)["python"]["packages"][name]["version"])


def pin(rig: Rig, name: str, version: str) -> None:
    """What an older lock would say: this version was the newest when it was made."""
    content = lock_of(rig)
    content["python"]["packages"][name] = {"version": version}
    rig.lock_file.write_text(json.dumps(content))


def test_a_lock_holds_every_commit_and_every_package_with_its_hashes(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("alpha", {"requirements.txt": "toml\n"})
    comfyui = forge.copy("ComfyUI", SIMULATOR)
    rig = machine(comfyui={"repo": comfyui.url}, custom_nodes=[{"url": node.url, "ref": "main"}])
    assert rig.doit("lock").executed == {"directories", "source", "nodes:alpha", "lock"}
    assert not rig.layout.environments.exists()
    content = lock_of(rig)
    assert content["comfyui"] == {"url": comfyui.url, "commit": comfyui.git("rev-parse", "HEAD")}
    commit = node.git("rev-parse", "HEAD")
    assert content["custom_nodes"] == {"alpha": {"url": node.url, "ref": "main", "commit": commit}}
    assert {"aiohttp", "toml", "pip", "requests"} <= set(content["python"]["packages"])
    for package in content["python"]["packages"].values():
        assert package["version"]
        assert {len(digest) for digest in package["sha256"]} == {64}
    assert content["python"]["asked"]["requirements"]["custom_nodes"] == {"alpha": ["toml"]}
    text = rig.lock_file.read_text()
    assert text == json.dumps(content, indent=1, sort_keys=True) + "\n", "one value per line"
    assert "://files." not in text, "whoever installs has an index of their own"
    assert rig.doit("lock").executed == set()


def test_a_run_with_a_lock_asks_nobody_what_is_newest(machine: MachineMaker, forge: Forge) -> None:
    node = forge.node("alpha", {"requirements.txt": "packaging\n"})
    first = machine("first", custom_nodes=[{"url": node.url}])
    first.doit("lock")
    pin(first, "packaging", "24.0")
    locked = first.lock_file.read_text()
    commit = node.git("rev-parse", "HEAD")
    node.commit({"requirements.txt": "toml\n"})
    second = machine("second", custom_nodes=[{"url": node.url}])
    second.lock_file.write_text(locked)
    second.doit("build")
    assert second.packages()["packaging"] == "24.0"
    assert "toml" not in second.packages()
    assert list(second.layout.sources.glob(f"alpha@{commit}"))
    assert lock_of(second) == json.loads(locked)


def test_pins_move_only_where_new_requirements_force_them_and_each_move_is_printed(
    machine: MachineMaker, forge: Forge
) -> None:
    alpha = forge.node("alpha", {"requirements.txt": "packaging\n"})
    rig = machine(custom_nodes=[{"url": alpha.url}])
    rig.doit("lock")
    pin(rig, "packaging", "24.0")
    commit = lock_of(rig)["custom_nodes"]["alpha"]["commit"]
    alpha.commit({"later.py": ""})
    beta = forge.node("beta", {"requirements.txt": "toml\n"})
    rig.spec["custom_nodes"].append({"url": beta.url})
    run = rig.doit("lock")
    assert pinned(rig, "packaging") == "24.0"
    assert run.moves == {f"+ toml {pinned(rig, 'toml')}"}
    assert lock_of(rig)["custom_nodes"]["alpha"]["commit"] == commit
    gamma = forge.node("gamma", {"requirements.txt": "packaging>=24.1\n"})
    rig.spec["custom_nodes"].append({"url": gamma.url})
    assert rig.doit("lock").moves == {f"packaging 24.0 → {pinned(rig, 'packaging')}"}
    rig.spec["custom_nodes"] = rig.spec["custom_nodes"][:1]
    rig.doit("lock")
    assert set(lock_of(rig)["custom_nodes"]) == {"alpha"}
    assert "toml" not in lock_of(rig)["python"]["packages"]


def test_an_edited_entry_is_resolved_anew_and_no_other(machine: MachineMaker, forge: Forge) -> None:
    alpha, beta = forge.node("alpha"), forge.node("beta")
    rig = machine(custom_nodes=[{"url": alpha.url}, {"url": beta.url}])
    rig.doit("lock")
    before = lock_of(rig)["custom_nodes"]
    alpha.commit({"later.py": ""}, tag="v2")
    beta.commit({"later.py": ""})
    rig.spec["custom_nodes"][0]["ref"] = "v2"
    run = rig.doit("lock")
    after = lock_of(rig)["custom_nodes"]
    assert after["alpha"] == {
        "url": alpha.url,
        "ref": "v2",
        "commit": alpha.git("rev-parse", "v2"),
    }
    assert after["beta"] == before["beta"]
    assert f"alpha {before['alpha']['commit'][:12]} → {after['alpha']['commit'][:12]}" in run.output


def test_update_moves_what_is_named_and_nothing_else(machine: MachineMaker, forge: Forge) -> None:
    alpha = forge.node("alpha", {"requirements.txt": "packaging\ntoml\n"})
    beta = forge.node("beta")
    rig = machine(custom_nodes=[{"url": alpha.url}, {"url": beta.url}])
    rig.doit("lock")
    newest = pinned(rig, "packaging")
    for name in ("packaging", "idna"):
        pin(rig, name, {"packaging": "24.0", "idna": "3.6"}[name])
    for node in (alpha, beta):
        node.commit({"later.py": ""})
    old = lock_of(rig)["custom_nodes"]
    receipts = snapshot(rig.layout.receipts)
    run = rig.doit("update", "beta", "packaging")
    assert snapshot(rig.layout.receipts) == receipts, "only the lock is written"
    assert lock_of(rig)["custom_nodes"]["alpha"] == old["alpha"]
    assert lock_of(rig)["custom_nodes"]["beta"]["commit"] == beta.git("rev-parse", "HEAD")
    assert pinned(rig, "idna") == "3.6"
    assert f"packaging 24.0 → {newest}" in run.moves
    commits = [old["beta"]["commit"][:12], lock_of(rig)["custom_nodes"]["beta"]["commit"][:12]]
    assert f"beta {commits[0]} → {commits[1]}" in run.moves
    assert rig.doit("lock").moves >= {f"beta {commits[0]} → {commits[1]}"}
    assert not rig.layout.environments.exists(), "doit applies it"
    rig.doit("update")
    assert lock_of(rig)["custom_nodes"]["alpha"]["commit"] == alpha.git("rev-parse", "HEAD")
    assert pinned(rig, "idna") != "3.6"
    assert "nothing is newer" in rig.doit("update").output


def test_update_of_a_name_that_nothing_has_says_so(machine: MachineMaker, forge: Forge) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha").url}])
    run = rig.doit("update", "alfa", code=3)
    assert "nothing is named 'alfa'; did you mean alpha?" in run.output
    assert "locked=1 forbids that" in rig.doit("update", "locked=1", code=3).output
    assert not rig.layout.machine.joinpath("receipts").exists()


@pytest.fixture
def locked(machine: MachineMaker, forge: Forge) -> tuple[Rig, Forge]:
    node = forge.node("alpha", {"requirements.txt": "toml\n"})
    rig = machine(custom_nodes=[{"url": node.url}])
    rig.doit("lock")
    return rig, forge


def test_locked_passes_what_fits_and_writes_nothing(locked: tuple[Rig, Forge]) -> None:
    rig, _ = locked
    before = rig.lock_file.stat()
    rig.doit("build", "locked=1")
    assert rig.lock_file.stat().st_mtime_ns == before.st_mtime_ns
    assert rig.doit("build", "locked=1").executed == set()


def test_locked_fails_and_says_what_differs(locked: tuple[Rig, Forge]) -> None:
    rig, forge = locked
    spec = json.dumps(rig.spec)
    text = rig.lock_file.read_text()
    more = forge.node("more", {"requirements.txt": "packaging\n"})

    def said(**changes: Any) -> str:
        rig.spec = {**json.loads(spec), **changes}
        run = rig.doit("build", "locked=1", code=2)
        assert "run doit lock without locked=1, and commit the lock" in run.output
        assert rig.lock_file.read_text() == text
        return run.output

    (alpha,) = json.loads(spec)["custom_nodes"]
    assert f"has it as {alpha['url']} at its own branch" in said(
        custom_nodes=[{**alpha, "ref": "main"}]
    )
    assert f"machine.lock doesn't name it, and machine.yaml asks for {more.url}" in said(
        custom_nodes=[alpha, {"url": more.url}]
    )
    assert "(more now requires 'packaging')" in said(
        custom_nodes=[alpha, {"path": str(more.folder), "name": "more"}]
    )
    assert "(alpha no longer requires 'toml')" in said(
        custom_nodes=[{**alpha, "requirements": False}]
    )
    assert "(alpha no longer requires 'toml')" in said(custom_nodes=[])
    overrides = {"torch": "none", "overrides": ["toml<1"]}
    assert "machine.lock is for overrides None, not ['toml<1']" in said(python=overrides)


def test_locked_fails_for_a_node_that_left_machine_yaml(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha").url}])
    rig.doit("lock")
    rig.spec["custom_nodes"] = []
    run = rig.doit("lock", "locked=1", code=1)
    assert "machine.lock doesn't fit (alpha left machine.yaml): run doit lock" in run.output


def test_locked_without_a_lock_fails(machine: MachineMaker) -> None:
    rig = machine()
    assert "machine.lock has no Python packages" in rig.doit("build", "locked=1", code=2).output
    assert not rig.lock_file.exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "machine.lock:1: isn't JSON"),
        ("", "machine.lock:1: is empty"),
        ('{"python": {"asked": {}, "packages": {"a": {}}}}', "a package has a version, a url, or"),
        ("<<<<<<< ours\n{}\n", "machine.lock:1: holds a merge conflict"),
        ('{"version": 2}', "machine.lock: version: "),
        ('{"comfyui": {"url": "x", "commit": "HEAD"}}', "machine.lock: comfyui.commit: "),
        ('{"python": {"packages": {"../x": {}}}}', "machine.lock: python"),
        ("[" * 100_000, "machine.lock: is nested too deeply"),
        ("\xff", "machine.lock: can't be read (is not UTF-8)"),
    ],
)
def test_a_damaged_lock_is_one_clear_line(machine: MachineMaker, text: str, why: str) -> None:
    rig = machine()
    rig.lock_file.write_bytes(text.encode("latin-1"))
    run = rig.doit("build", code=2)
    assert why in run.output
    assert "restore it from version control, or delete it" in run.output
    assert "Traceback" not in run.output
    assert rig.lock_file.read_bytes() == text.encode("latin-1")
    assert why in rig.doit("update", code=3).output
    assert "nothing was running" in rig.doit("down").output


def test_what_the_environment_overrides_never_reaches_the_lock(
    machine: MachineMaker, forge: Forge
) -> None:
    alpha = forge.node("alpha", {"requirements.txt": "toml\n"})
    rig = machine(custom_nodes=[{"url": alpha.url}])
    rig.doit("build")
    before = rig.lock_file.read_text()
    beta = forge.node("beta", {"requirements.txt": "packaging\n"})
    added = f"alpha,{beta.url}"
    rig.doit("build", COMFYUI_CUSTOM_NODES=added)
    assert rig.lock_file.read_text() == before
    assert {"toml", "packaging"} <= set(rig.packages())
    beta.commit({"later.py": ""})
    assert rig.doit("build", COMFYUI_CUSTOM_NODES=added).executed == set()
    rig.doit("build")
    assert rig.lock_file.read_text() == before
    assert "packaging" not in rig.packages()


def test_a_lock_that_can_not_be_written_is_a_warning_and_what_was_resolved_is_kept(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("alpha")
    rig = machine(workspace=None, custom_nodes=[{"url": node.url}])
    rig.spec["workspace"] = str(rig.workspace)
    rig.spec["python"] = {"torch": "none"}
    rig.write()
    descriptor = os.open(rig.file, os.O_RDONLY)
    try:
        # A folder in which nobody can make a file, root neither.
        there = f"machine=/proc/{os.getpid()}/fd/{descriptor}"
        run = rig.doit("lock", there)
        assert ".lock can't be written" in run.output
        node.commit({"later.py": ""})
        assert rig.doit("lock", there).executed == set()
    finally:
        os.close(descriptor)


def test_a_missing_lock_is_made_of_what_the_machine_is(machine: MachineMaker, forge: Forge) -> None:
    node = forge.node("alpha", {"requirements.txt": "toml\n"})
    rig = machine(custom_nodes=[{"url": node.url}])
    rig.doit("build")
    before = rig.lock_file.read_text()
    rig.lock_file.unlink()
    node.commit({"later.py": ""})
    assert rig.doit("build").executed == {"lock"}
    assert rig.lock_file.read_text() == before


def test_a_lock_of_another_machine_file_has_its_name(machine: MachineMaker, tmp_path: Path) -> None:
    rig = machine()
    other = rig.folder / "other.yml"
    rig.write()
    other.write_text(rig.file.read_text())
    rig.doit("lock", f"machine={other}")
    assert (rig.folder / "other.lock").is_file()
    assert not rig.lock_file.exists()


def test_a_deleted_lock_does_not_bring_back_what_was_wrong_with_it(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit("build")
    pin(rig, "idna", "99.9")
    run = rig.doit("build", code=2)
    assert "the locked packages can't be installed" in run.output
    rig.lock_file.unlink()
    rig.doit("build")
    assert pinned(rig, "idna") == rig.packages()["idna"]


def test_an_entry_that_says_the_same_in_other_words_is_locked_in_those_words(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha").url}])
    rig.doit("build")
    rig.spec["custom_nodes"][0]["ref"] = "main"
    assert rig.doit("build").executed == {"nodes:alpha", "lock"}
    assert lock_of(rig)["custom_nodes"]["alpha"]["ref"] == "main"
    assert rig.doit("build", "locked=1").executed == set()


def test_an_optional_node_that_is_away_keeps_its_place_in_the_lock(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    node = forge.node("alpha", {"requirements.txt": "toml\n"})
    first = machine("first", custom_nodes=[{"url": node.url, "optional": True}])
    first.doit("lock")
    locked = first.lock_file.read_text()
    node.folder.rename(tmp_path / "away")
    second = machine("second", custom_nodes=first.spec["custom_nodes"])
    second.env["XDG_CACHE_HOME"] = str(tmp_path / "empty")
    second.lock_file.write_text(locked)
    for how in (["locked=1"], []):
        assert "! custom node alpha (optional) is left out" in second.doit("lock", *how).output
        assert second.lock_file.read_text() == locked


def test_what_could_not_be_had_for_an_optional_node_leaves_no_trace_in_the_lock(
    machine: MachineMaker, forge: Forge
) -> None:
    asked = "away @ http://127.0.0.1:9/away-1.0-py3-none-any.whl\n"
    node = forge.node("alpha", {"requirements.txt": asked})
    rig = machine(custom_nodes=[{"url": node.url, "optional": True}])
    rig.env["UV_HTTP_RETRIES"] = "0"
    assert "! custom node alpha (optional) is left out" in rig.doit("lock").output
    text = rig.lock_file.read_text()
    assert "left_out" not in text
    assert rig.doit("lock").executed == {"lock"}, "every run tries it again"
    assert rig.lock_file.read_text() == text
    assert "has no packages for it" in rig.doit("lock", "locked=1").output


def test_a_commit_that_is_gone_is_told_with_what_to_do(machine: MachineMaker, forge: Forge) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha").url}])
    rig.doit("lock")
    rig.lock_file.write_text(
        rig.lock_file.read_text().replace(lock_of(rig)["custom_nodes"]["alpha"]["commit"], "0" * 40)
    )
    said = "no longer has 000000000000, which machine.lock names: doit update alpha"
    assert said in rig.doit("lock", code=2).output
    rig.doit("update", "alpha")
    rig.doit("lock", "locked=1")


def test_a_lock_that_is_a_link_is_written_where_it_leads(machine: MachineMaker) -> None:
    rig = machine()
    kept = rig.folder / "kept.json"
    kept.write_text('{"version": 1}')
    kept.chmod(0o640)
    rig.lock_file.symlink_to(kept)
    rig.doit("lock")
    assert rig.lock_file.is_symlink()
    assert "aiohttp" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o640


def test_nested_requirements_of_a_local_node_are_watched(
    machine: MachineMaker, tmp_path: Path
) -> None:
    node = tmp_path / "dev"
    (node / "deps").mkdir(parents=True)
    (node / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    (node / "requirements.txt").write_text("-r deps/base.txt\n")
    (node / "deps" / "base.txt").write_text("")
    rig = machine(custom_nodes=[{"path": str(node)}])
    rig.doit("lock")
    (node / "deps" / "base.txt").write_text("toml\n")
    assert "toml" in {line.split()[1] for line in rig.doit("lock").moves}


def test_what_machine_yaml_adds_is_resolved_with_all_else_locked_and_planned(
    machine: MachineMaker, forge: Forge
) -> None:
    alpha = forge.node("alpha", {"requirements.txt": "packaging<24\n"})
    python = {"torch": "none", "packages": ["toml", "packaging>=23"]}
    rig = machine(custom_nodes=[{"url": alpha.url}], python=python)
    planned = rig.doit("plan", "lock")
    assert "packages resolved" in planned.output
    rig.doit("lock")
    assert lock_of(rig)["python"]["asked"]["packages"] == python["packages"]
    assert pinned(rig, "packaging").startswith("23")
    rig.spec["python"] = {**python, "packages": ["toml", "packaging>=23", "isodate"]}
    version = next(iter(rig.doit("plan", "lock").moves)).split()[-1]
    assert rig.doit("plan", "lock").moves == {f"+ isodate {version}"}
    run = rig.doit("lock", "locked=1", code=1)
    assert "machine.lock is for packages " in run.output
    rig.spec["python"] = {**python, "packages": ["packaging>=24"]}
    run = rig.doit("lock", code=1)
    assert "custom node alpha requires 'packaging<24' (requirements.txt:1)" in run.output
    assert "machine.yaml requires 'packaging>=24' (python.packages)" in run.output


def test_a_torch_build_that_does_not_exist_is_told_with_one_that_does(
    machine: MachineMaker,
) -> None:
    rig = machine(python={"torch": "cu199"})
    run = rig.doit("lock", code=1)
    (told,) = re.findall(r"✗ lock: python.torch: there is no build of torch for (.*)", run.output)
    assert re.fullmatch(r"cu199; did you mean cu\d+\?", told)
