"""Custom nodes of the registry on a machine: resolved, locked, built, updated, rebuilt offline."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.registry import RegistryServer, downloads, registry
from tests.rig import Rig

NAME = "alpha-pack"


@pytest.fixture
def served() -> Iterator[RegistryServer]:
    with registry() as server:
        yield server


def made(machine: MachineMaker, served: RegistryServer, name: str = "machine", **node: str) -> Rig:
    return machine(name, custom_nodes=[{"id": NAME, **node}], registry={"url": served.url})


def lock(rig: Rig) -> Any:
    return json.loads(rig.lock_file.read_text())["custom_nodes"][NAME]


def init(rig: Rig) -> str:
    return (rig.comfyui / "custom_nodes" / NAME / "__init__.py").read_text()


def test_an_id_becomes_a_node_like_any_other(machine: MachineMaker, served: RegistryServer) -> None:
    old = served.publish(NAME, "8.9.0")
    new = served.publish(NAME, "8.22.0")
    rig = made(machine, served)
    planned = rig.doit("plan").output
    assert f"fetch {NAME} 8.22.0 from the registry" in planned
    assert not rig.lock_file.exists()
    rig.doit("build")
    assert lock(rig)["archive"] == {
        "id": NAME,
        "version": "8.22.0",
        "sha256": hashlib.sha256(new.archive).hexdigest(),
        "size": len(new.archive),
    }
    assert rig.doit("build").executed == set()
    # An edit of the version is a move like any other.
    rig.spec["custom_nodes"] = [{"id": NAME, "version": "8.9.0"}]
    assert f"{NAME} 8.22.0 → 8.9.0" in rig.doit("plan").moves
    rig.doit("build")
    assert lock(rig)["ref"] == "8.9.0"
    assert lock(rig)["archive"]["sha256"] == hashlib.sha256(old.archive).hexdigest()
    assert len(downloads(served)) == 2
    shown = json.loads(rig.doit("generations", "--json").output)["generations"]
    assert shown[0]["nodes"][NAME] == {"version": "8.9.0", "commit": lock(rig)["commit"]}
    init_file = rig.comfyui / "custom_nodes" / NAME / "__init__.py"
    init_file.write_text("# mine\n")
    said = rig.doit("build").output
    assert "__init__.py" in said
    assert "was edited by hand" in said


def test_update_moves_to_the_newest_and_asks_again_whether_it_may(
    machine: MachineMaker, served: RegistryServer
) -> None:
    served.publish(NAME, "1.0.0")
    rig = made(machine, served)
    rig.doit("build")
    served.publish(NAME, "1.1.0")
    assert rig.doit("build").executed == set()
    assert f"{NAME} 1.0.0 → 1.1.0" in rig.doit("update", NAME).moves
    assert lock(rig)["archive"]["version"] == "1.1.0"
    rig.doit("build")
    assert len(downloads(served)) == 2
    served.nodes[NAME].status = "NodeStatusBanned"
    served.nodes[NAME].status_detail = "it mines coins"
    refused = rig.doit("update", NAME, code=2).output
    assert f'the registry has banned {NAME} ("it mines coins")' in refused
    # What is locked is built all the same: that needs no network.
    asked = len(served.asked)
    shutil.rmtree(rig.workspace / ".machine" / "sources")
    rig.doit("build")
    assert len(served.asked) == asked


def test_a_lock_and_the_cache_rebuild_without_the_registry(
    machine: MachineMaker, served: RegistryServer, tmp_path: Path
) -> None:
    served.publish(NAME, "1.0.0")
    rig = made(machine, served)
    rig.doit("build")
    content, asked = init(rig), len(served.asked)
    other = made(machine, served, "other")
    shutil.copy(rig.lock_file, other.lock_file)
    other.doit("build", "locked=1")
    assert init(other) == content
    # git's cache gone, the archive's is enough; both gone, it is fetched and compared.
    for cache, fetched in (("git", 0), ("archives", 1)):
        for gone in ("git", cache):
            shutil.rmtree(tmp_path / "cache" / "comfy-machine" / gone, ignore_errors=True)
        shutil.rmtree(other.workspace / ".machine" / "sources")
        other.doit("nodes", "locked=1")
        assert len(served.asked) == asked + fetched


def test_an_archive_that_has_changed_is_refused(
    machine: MachineMaker, served: RegistryServer, tmp_path: Path
) -> None:
    version = served.publish(NAME, "1.0.0")
    rig = made(machine, served)
    rig.doit("build")
    version.archive += b"\0"
    shutil.rmtree(tmp_path / "cache" / "comfy-machine")
    shutil.rmtree(rig.workspace / ".machine" / "sources")
    refused = rig.doit("nodes", code=2).output
    assert f"{NAME} 1.0.0: {served.url}/archives/{NAME}/1.0.0/node.zip has changed" in refused


@pytest.mark.parametrize("state", ["flagged", "banned", "deleted", "pending"])
def test_a_version_that_the_registry_does_not_let_be_installed_is_refused_in_its_words(
    machine: MachineMaker, served: RegistryServer, state: str
) -> None:
    served.publish(NAME, "1.0.0")
    bad = served.publish(NAME, "1.1.0", status_reason='{"message": "it runs\\nwhat it fetches"}')
    bad.status = f"NodeVersionStatus{state.title()}"
    rig = made(machine, served, version="1.1.0")
    refused = rig.doit("nodes", code=2)
    assert (
        f'the registry says that {NAME} 1.1.0 is {state} ("it runs what it fetches"): '
        "name another version, such as 1.0.0"
    ) in refused.output
    # Without a version, the newest active one is taken.
    rig.spec["custom_nodes"] = [{"id": NAME}]
    rig.doit("nodes")
    (source,) = rig.layout.sources.glob(f"{NAME}@*/")
    assert 'version = "1.0.0"' in (source / "pyproject.toml").read_text()
    assert len(downloads(served)) == 1


def test_a_deprecated_version_is_a_warning(machine: MachineMaker, served: RegistryServer) -> None:
    served.publish(NAME, "1.0.0")
    served.publish(NAME, "2.0.0", deprecated=True)
    rig = made(machine, served, version="2.0.0")
    said = rig.doit("nodes").output
    assert f"! {NAME}: the registry calls 2.0.0 of {NAME} deprecated" in said
    rig.spec["custom_nodes"] = [{"id": NAME}]
    assert "calls" not in rig.doit("nodes").output


def test_an_id_or_version_that_is_not_there_is_named_with_what_may_be_meant(
    machine: MachineMaker, served: RegistryServer, forge: Forge
) -> None:
    served.publish("comfyui-impact-pack", "8.22.0")
    rig = machine(
        custom_nodes=[{"id": "comfyui-impct-pack"}, {"url": forge.node("beta").url}],
        registry={"url": served.url},
    )
    refused = rig.doit("nodes", code=2)
    assert (
        "the registry has no custom node comfyui-impct-pack; did you mean comfyui-impact-pack?"
    ) in refused.output
    assert "nodes:beta" in refused.executed
    rig.spec["custom_nodes"] = [{"id": "comfyui-impact-pack", "version": "9.0.0"}]
    refused = rig.doit("nodes", code=2)
    assert (
        "the registry has no version 9.0.0 of comfyui-impact-pack: name another, such as 8.22.0"
    ) in refused.output


def test_a_node_of_the_registry_may_be_optional_and_have_a_name_of_its_own(
    machine: MachineMaker, served: RegistryServer
) -> None:
    served.publish(NAME, "1.0.0")
    served.publish("beta-pack", "1.0.0", status="NodeVersionStatusFlagged")
    rig = machine(
        custom_nodes=[{"id": NAME, "name": "mine"}, {"id": "beta-pack", "optional": True}],
        registry={"url": served.url},
    )
    said = rig.doit("build").output
    assert "! custom node beta-pack (optional) is left out: the registry has no active" in said
    assert (rig.comfyui / "custom_nodes" / "mine").is_dir()
    assert not (rig.comfyui / "custom_nodes" / "beta-pack").exists()


def test_locked_1_wants_the_very_version(machine: MachineMaker, served: RegistryServer) -> None:
    served.publish(NAME, "1.0.0")
    rig = made(machine, served, version="1.0.0")
    rig.doit("lock")
    rig.spec["custom_nodes"] = [{"id": NAME, "version": "1.1.0"}]
    refused = rig.doit("nodes", "locked=1", code=2).output
    assert (
        f"machine.lock has it as {NAME} 1.0.0 of the registry, and machine.yaml asks for "
        f"{NAME} 1.1.0 of the registry: run doit lock without locked=1"
    ) in refused
