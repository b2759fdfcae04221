"""What doit verify finds in environments, and how that is repaired."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from comfy_machine.host.storage import digest_folders
from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.rig import Rig

PATCHER = """
import importlib.util
f = importlib.util.find_spec("toml").origin
s = open(f).read()
if "PATCHED" not in s:
    open(f, "w").write(s + "\\n# PATCHED by a custom node\\n")
NODE_CLASS_MAPPINGS = {}
"""


def file(environment: Path, place: str) -> Path:
    (found,) = environment.glob(f"lib/python*/site-packages/{place}")
    return found


def spoil(path: Path) -> None:
    """Write in place, as one does who doesn't want to be found."""
    before = path.stat()
    with path.open("r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        opened.write(b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def library(environment: Path) -> Path:
    (found,) = environment.glob("lib/python*/site-packages/yarl/_quoting_c.*.so")
    return found


@pytest.fixture
def two(machine: MachineMaker, forge: Forge, tmp_path: Path) -> tuple[Rig, Path, Path]:
    """A machine, the environment that its instance runs from, and another that was grown from it
    since, for a generation that doesn't pass its proof."""
    rig = machine(custom_nodes=[{"url": forge.node("one", {"requirements.txt": "toml"}).url}])
    rig.env["UV_CACHE_DIR"] = str(tmp_path / "uv")
    rig.doit()
    bad = forge.repository("bad", {"__init__.py": "1/0\n", "requirements.txt": "six\n"})
    rig.spec["custom_nodes"].append({"url": bad.url})
    rig.doit("build", code=2)
    (other,) = set(digest_folders.list_folders(rig.layout.environments)) - {rig.environment}
    return rig, rig.environment, other


@pytest.mark.afresh
def test_verify_finds_a_foreign_write_in_every_environment_that_has_the_file(
    two: tuple[Rig, Path, Path],
) -> None:
    rig, running, other = two
    assert library(running).samefile(library(other))
    sound = rig.doit("verify")
    assert "files of 2 Python environments are intact" in sound.output
    spoil(library(running))
    spoil(file(other, "toml/decoder.py"))
    found = rig.doit("verify", code=1).output
    name = f"yarl/{library(running).name} of yarl isn't what was installed"
    assert f"✗ {name} (environment {running.name})" in found
    assert f"✗ {name} (environment {other.name})" in found
    assert f"✗ toml/decoder.py of toml isn't what was installed (environment {other.name})" in found
    assert f"toml isn't what was installed (environment {running.name})" not in found
    mended = rig.doit("verify", "--fetch", code=1).output
    assert f"{other.name} is repaired" in mended
    assert f"instances run from {running.name}: doit makes a new one" in mended
    assert not library(running).samefile(library(other))
    damaged, right = library(running).read_bytes(), library(other).read_bytes()
    rig.spec["custom_nodes"].pop()
    rig.doit()
    assert rig.environment.name == f"{running.name}.2"
    assert library(rig.environment).read_bytes() == right != damaged
    assert rig.running()["comfyui-gpu0"]
    assert not running.exists(), "nobody wants to go back to a damaged one"
    assert "✗" not in rig.doit("verify").output
    for path in (library(rig.environment), file(rig.environment, "toml/decoder.py")):
        path.write_bytes(path.read_bytes()[:100])
    # Verify didn't look since: the next environment doesn't get what was truncated.
    rig.spec["python"]["packages"] = ["six"]
    rig.doit()
    assert library(rig.environment).read_bytes() == right
    assert f"(environment {rig.environment.name})" not in rig.doit("verify", code=1).output
    assert rig.doit().executed == {"collection"}, "nobody goes back to what verify found"
    assert "✗" not in rig.doit("verify").output
    assert rig.doit().executed == set()


@pytest.mark.afresh
def test_a_node_that_patches_a_package_at_each_import_is_named_once_and_reaches_nothing_else(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    node = forge.node("plain", {"requirements.txt": "toml"})
    rig = machine(custom_nodes=[{"url": node.url}])
    # Should this fail, the caller's own cache must not be what is written into.
    rig.env["UV_CACHE_DIR"] = str(tmp_path / "uv")
    rig.doit()
    before = file(rig.environment, "toml/__init__.py").read_text()
    first = rig.environment
    patcher = forge.repository("patcher", {"__init__.py": PATCHER, "requirements.txt": "six\n"})
    rig.spec["custom_nodes"].append({"url": patcher.url})
    run = rig.doit()
    assert "wrote into toml/__init__.py of toml: kept, in this environment only" in run.output
    assert "PATCHED" in file(rig.environment, "toml/__init__.py").read_text()
    cached = list((tmp_path / "uv").rglob("toml/__init__.py"))
    assert [path.read_text() for path in cached] == [before]
    if first.exists():
        assert file(first, "toml/__init__.py").read_text() == before
    assert rig.doit().executed == set()
    told = rig.doit("verify").output
    assert "! toml/__init__.py of toml isn't what was installed" in told
    # What it did goes with it.
    rig.spec["custom_nodes"].pop()
    rig.doit()
    assert file(rig.environment, "toml/__init__.py").read_text() == before


@pytest.mark.afresh
def test_a_package_that_uvs_cache_holds_damaged_is_downloaded_again(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("one", {"requirements.txt": "toml"}).url}])
    rig.env["UV_CACHE_DIR"] = str(tmp_path / "uv")
    rig.doit("build")
    for path in (tmp_path / "uv").rglob("toml/decoder.py"):
        spoil(path)
    right = file(rig.environment, "toml/decoder.py").read_text()
    spoil(file(rig.environment, "toml/decoder.py"))
    assert "is repaired" in rig.doit("verify", "--fetch").output
    assert file(rig.environment, "toml/decoder.py").read_text() == right
    assert not list((tmp_path / "uv").rglob("toml/decoder.py")), "nor does the next one get it"
    assert "are intact" in rig.doit("verify").output


@pytest.mark.afresh
def test_a_file_in_the_place_of_a_packages_folder_is_not_copied_into_the_next_environment(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("one", {"requirements.txt": "toml"}).url}])
    rig.doit()
    package = file(rig.environment, "toml")
    shutil.rmtree(package)
    package.write_text("rubbish")
    assert "toml/decoder.py of toml is missing" in rig.doit("verify", code=1).output
    rig.doit()
    assert file(rig.environment, "toml/decoder.py") != package / "decoder.py"
    assert "are intact" in rig.doit("verify").output


@pytest.mark.afresh
def test_a_file_that_is_written_into_again_after_it_was_mended_is_known(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("one", {"requirements.txt": "toml"}).url}])
    rig.doit("build")
    for _ in range(2):
        spoil(file(rig.environment, "toml/decoder.py"))
        run = rig.doit("verify", "--fetch")
    assert "! toml/decoder.py of toml isn't what was installed" in run.output
    assert "✗" not in run.output
    assert rig.doit("build").executed == set()
