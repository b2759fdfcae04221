"""doit audit: what the registry and advisories say of a machine's nodes and packages."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from comfy_machine.commands.shared import documents
from tests.conftest import MachineMaker
from tests.forge import Forge, Repository
from tests.osv import OsvServer, advisory, osv
from tests.registry import Node, RegistryServer, registry
from tests.rig import Ended, Rig

ALPHA, BETA = "alpha-pack", "beta-pack"
PROJECT = f'[project]\nname = "{BETA}"\nversion = "2.0.0"\n'


@pytest.fixture
def served() -> Iterator[RegistryServer]:
    with registry() as server:
        server.publish(ALPHA, "1.0.0")
        server.nodes[ALPHA].repository = "https://github.com/Owner/Alpha-Pack"
        yield server


@pytest.fixture
def knows() -> Iterator[OsvServer]:
    with osv() as server:
        yield server


@pytest.fixture
def beta(forge: Forge, served: RegistryServer) -> Repository:
    """A git node that the registry has too."""
    repository = forge.node("beta", {"pyproject.toml": PROJECT})
    served.publish(BETA, "2.0.0")
    served.nodes[BETA].repository = f"{repository.url}.git"
    return repository


@pytest.fixture
def rig(machine: MachineMaker, served: RegistryServer, knows: OsvServer, beta: Repository) -> Rig:
    """A node by its id and one of git, locked; nothing is said against them."""
    rig = machine(
        custom_nodes=[{"id": ALPHA}, {"url": beta.url}],
        registry={"url": served.url, "advisories": [knows.url]},
    )
    rig.doit("lock")
    return rig


def row(ended: Ended, name: str) -> str:
    (line,) = [line for line in ended.output.splitlines() if line[2:].startswith(name)]
    return line


def test_nothing_is_said_against_what_is_fine(rig: Rig, knows: OsvServer, beta: Repository) -> None:
    found = rig.doit("audit")
    assert row(found, ALPHA) == f"✓ {ALPHA} 1.0.0"
    assert row(found, "beta") == f"✓ beta {beta.git('rev-parse', 'HEAD')[:12]}"
    packages = json.loads(rig.lock_file.read_text())["python"]["packages"]
    assert f"0 of 3 sources and 0 of {len(packages)} Python packages" in found.output
    # What is asked: the archive's version, since its commit is our own; git's commit; packages.
    github = {"name": "https://github.com/Owner/Alpha-Pack", "ecosystem": "GIT"}
    assert {"package": github, "version": "1.0.0"} in knows.asked
    assert {"commit": beta.git("rev-parse", "HEAD")} in knows.asked
    package = {"name": "requests", "ecosystem": "PyPI"}
    assert {"package": package, "version": packages["requests"]["version"]} in knows.asked


def test_what_was_banned_or_flagged_since_is_found_and_named_with_the_registrys_words(
    rig: Rig, served: RegistryServer
) -> None:
    version = served.nodes[ALPHA].versions["1.0.0"]
    version.status, version.status_reason = "NodeVersionStatusFlagged", "it runs eval"
    served.nodes[BETA].status = "NodeStatusBanned"
    served.nodes[BETA].status_detail = "malware"
    found = rig.doit("audit", code=1)
    assert row(found, ALPHA) == (
        f'✗ {ALPHA} 1.0.0: the registry says that {ALPHA} 1.0.0 is flagged ("it runs eval")'
    )
    assert row(found, "beta").endswith(f': the registry has banned {BETA} ("malware")')
    assert "2 of 3 sources and 0 of " in found.output


def test_what_can_not_be_judged_is_named_and_no_failure(
    rig: Rig, served: RegistryServer, forge: Forge, tmp_path: Path
) -> None:
    (tmp_path / "own").mkdir()
    other = forge.node("other")
    unversioned = forge.node("unversioned")
    served.nodes["plain"] = Node("plain", unversioned.url)
    served.nodes[ALPHA].versions["1.0.0"].status = "NodeVersionStatusPending"
    rig.spec["custom_nodes"] += [
        {"path": str(tmp_path / "own")}, {"url": other.url}, {"url": unversioned.url},
        {"id": "later"},
    ]  # fmt: skip
    rig.doit("nodes:other", "nodes:unversioned")
    found = rig.doit("audit")
    assert row(found, ALPHA).startswith(f"? {ALPHA} 1.0.0: can't be judged: the registry says")
    assert row(found, "own") == "? own: can't be judged: it is a local folder"
    assert row(found, "other").endswith(": can't be judged: the registry doesn't have it")
    assert row(found, "unversioned").endswith("doesn't know which version of plain it is")
    assert row(found, "later").endswith("machine.lock doesn't name its version yet")
    assert f"can't be judged: ComfyUI, {ALPHA}, own, other, unversioned, later" in found.output


def test_advisories_are_named_once_and_can_be_left_out(
    rig: Rig, knows: OsvServer, beta: Repository
) -> None:
    requests = json.loads(rig.lock_file.read_text())["python"]["packages"]["requests"]["version"]
    package = {"name": "requests", "ecosystem": "PyPI"}
    alpha = {"name": "https://github.com/Owner/Alpha-Pack", "ecosystem": "GIT"}
    for each in (
        advisory("GHSA-1", [{"package": package, "versions": [requests]}], aliases=["PYSEC-1"]),
        advisory("PYSEC-1", [{"package": package, "versions": [requests]}], aliases=["GHSA-1"]),
        advisory("PYSEC-0", [{"package": package, "versions": [requests]}], withdrawn="2026"),
        advisory("CVE-2", [{"package": alpha, "versions": ["1.0.0"]}]),
        advisory("OSV-3", [{"package": {}, "versions": []}]),
    ):
        knows.documents[each["id"]] = each
    knows.commits[beta.git("rev-parse", "HEAD")] = ["OSV-3"]
    knows.page = 1
    found = rig.doit("audit", code=1)
    page = "https://osv.dev/vulnerability/"
    assert row(found, ALPHA) == f"✗ {ALPHA} 1.0.0: CVE-2: What CVE-2 says ({page}CVE-2)"
    assert row(found, "beta").endswith(f": OSV-3: What OSV-3 says ({page}OSV-3)")
    assert row(found, "requests") == (
        f"✗ requests {requests} (Python package): GHSA-1: What GHSA-1 says ({page}GHSA-1)"
    )
    told = json.loads(rig.doit("audit", "--json", code=1).output)
    jsonschema.validate(told, documents.schema("audit"))
    assert told["ok"] is False
    by_name = {each["name"]: each for each in told["sources"]}
    assert [each["id"] for each in by_name[ALPHA]["advisories"]] == ["CVE-2"]
    assert by_name[ALPHA]["result"] == "advisory"
    assert told["packages"][0]["advisories"][0]["aliases"] == ["PYSEC-1"]
    rig.doit("audit", "--ignore", "PYSEC-1,CVE-2,OSV-3")


def test_a_list_of_ones_own_serves_without_a_network(
    rig: Rig, served: RegistryServer, beta: Repository
) -> None:
    """As a folder of documents, and as the archive that OSV offers of an ecosystem."""
    requests = json.loads(rig.lock_file.read_text())["python"]["packages"]["requests"]["version"]
    commit = beta.git("rev-parse", "HEAD")

    def of_beta(*events: dict[str, str]) -> Any:
        return [{"ranges": [{"type": "GIT", "repo": beta.url, "events": [*events]}]}]

    pypi = {"name": "Requests", "ecosystem": "PyPI"}
    versions = [{"introduced": "0"}, {"fixed": f"{requests}.1"}]
    affected = {"package": pypi, "ranges": [{"type": "ECOSYSTEM", "events": versions}]}
    listed = [
        advisory("OWN-1", of_beta({"introduced": commit})),
        advisory("OWN-2", of_beta({"introduced": "0"}, {"fixed": commit})),
        advisory("OWN-3", [affected]),
        advisory("OWN-4", [affected | {"package": {"name": "other", "ecosystem": "PyPI"}}]),
    ]
    folder = rig.folder / "advisories"
    folder.mkdir()
    for each in listed:
        (folder / f"{each['id']}.json").write_text(json.dumps(each))
    with zipfile.ZipFile(rig.folder / "all.zip", "w") as made:
        for each in listed:
            made.writestr(f"{each['id']}.json", json.dumps(each))
    served.broken = True
    for source in ("advisories", "all.zip"):
        rig.spec["registry"]["advisories"] = [source]
        found = rig.doit("audit", code=1)
        assert "OWN-1: What OWN-1 says" in found.output
        assert "requests" in row(found, "requests")
        assert "OWN-2" not in found.output
        assert "OWN-4" not in found.output
    (folder / "OWN-1.json").write_text(
        json.dumps(advisory("OWN-1", of_beta({"introduced": "0"}, {"fixed": "f" * 40})))
    )
    (folder / "OWN-3.json").unlink()
    served.broken = False
    rig.spec["registry"]["advisories"] = ["advisories"]
    assert "whether OWN-1 affects it can't be told" in row(rig.doit("audit"), "beta")
    (folder / "broken.json").write_text("{")
    said = rig.doit("audit").output
    assert f"! advisories are missing: {folder} holds what isn't JSON" in said


def test_silence_of_the_registry_or_of_a_source_is_no_judgement(
    rig: Rig, served: RegistryServer, knows: OsvServer
) -> None:
    rig.spec["registry"]["advisories"] = []
    found = rig.doit("audit")
    assert found.output.splitlines()[-1] == "0 of 3 sources have findings; can't be judged: ComfyUI"
    rig.spec["registry"]["advisories"] = [knows.url]
    knows.broken = True
    found = rig.doit("audit")
    assert "! advisories are missing: " in found.output
    assert row(found, ALPHA).startswith(f"? {ALPHA} 1.0.0: can't be judged: ")
    assert "Python packages" in found.output.splitlines()[-1].partition("can't be judged")[2]
    served.broken, knows.broken = True, False
    found = rig.doit("audit")
    assert row(found, ALPHA).startswith(f"? {ALPHA} 1.0.0: can't be judged: ")
    assert "500" in row(found, "beta")
