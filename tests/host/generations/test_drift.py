"""What is said of a generation that isn't as it was made."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_machine.host.generations import drift, manifest, reported_changes
from comfy_machine.host.repositories import git
from comfy_machine.host.storage import digest_folders
from comfy_machine.host.system import files
from tests.forge import Forge, Repository

ALPHA = "ComfyUI/custom_nodes/alpha"


@pytest.fixture
def generation(tmp_path: Path) -> Path:
    """ComfyUI with two custom nodes and an environment."""
    folder = tmp_path / "0123"
    own = {"main.py": "", "custom_nodes/own.py": "", "custom_nodes/example/x.py": ""}
    checkouts = {"ComfyUI": Forge(folder).repository("ComfyUI", {**own}).folder}
    for name in ("alpha", "beta"):
        nodes = Forge(folder / "ComfyUI" / "custom_nodes")
        checkouts[f"ComfyUI/custom_nodes/{name}"] = nodes.node(name, {"settings.json": ""}).folder
    home = tmp_path / "4567"
    (home / "lib" / "python3.11" / "site-packages" / "idna-3.7.dist-info").mkdir(parents=True)
    digest_folders.finish(home, {"digest": "4567", "installed": ["idna-3.7.dist-info"], "top": []})
    files.point(folder / "environment", home)
    heads = {place: git.head(checkout) for place, checkout in checkouts.items()}
    receipt = {"digest": "0123", "heads": heads, "links": {}, "nodes": ["alpha", "beta"]}
    digest_folders.finish(folder, receipt)
    manifest.stamp(folder)
    return folder


def site(generation: Path) -> Path:
    return generation / "environment" / "lib" / "python3.11" / "site-packages"


def test_of_what_is_as_it_was_made_nothing(generation: Path) -> None:
    for name in ("__pycache__", "gone.disabled", ".cache"):
        (generation / reported_changes.CUSTOM_NODES / name).mkdir()
    assert drift.lines(generation) == []
    assert drift.lines(generation.with_name("nowhere")) == []


def test_a_node_by_hand_with_the_line_that_declares_it(generation: Path, tmp_path: Path) -> None:
    custom = generation / reported_changes.CUSTOM_NODES
    forge = Forge(custom)
    cloned, other = forge.node("Cloned"), forge.node("other-name")
    cloned.git("remote", "add", "origin", "https://user:secret@localhost/a/Cloned.git")
    other.git("remote", "add", "origin", "git@localhost:a/something.git")
    (custom / "single.py").write_text("")
    (custom / "registry").mkdir()
    url = "https://localhost/a/registry"
    (custom / "registry" / "pyproject.toml").write_text(f"[project.urls]\nRepository = '{url}'\n")
    (custom / "linked").symlink_to(tmp_path)
    found = {line.split()[2]: line for line in drift.by_hand(generation)}
    assert sorted(found) == ["Cloned", "linked", "other-name", "registry", "single.py"]
    assert f"Cloned.git, ref: {git.head(cloned.folder)}}}" in found["Cloned"]
    assert "secret" not in found["Cloned"]
    assert "{url: git@localhost:a/something.git, name: other-name, ref: " in found["other-name"]
    assert f"- {{url: {url}}}" in found["registry"]
    assert f"- {{path: {tmp_path}}}" in found["linked"]
    assert all(f"or drop it: rm -r {custom / name} " in line for name, line in found.items())


def test_a_package_by_hand_and_one_of_a_custom_node(generation: Path) -> None:
    (site(generation) / "toml-0.10.dist-info").mkdir()
    (site(generation) / "colorama-0.4.dist-info").mkdir()
    reported_changes.add(generation, "alpha", gone=[], new=["colorama-0.4.dist-info"])
    by_hand, by_alpha = drift.lines(generation)
    assert "installed by hand: toml==0.10; " in by_hand
    assert "(python.packages: [toml==0.10])" in by_hand
    assert by_hand.endswith(" toml && doit restart")
    assert by_alpha == ("custom node alpha installed colorama 0.4, which machine.lock doesn't say")


def test_what_processes_did_by_who_did_it(generation: Path) -> None:
    alpha = Repository(generation / ALPHA)
    before = git.head(alpha.folder)
    for place in ("ComfyUI/main.py", "ComfyUI/custom_nodes/beta/settings.json"):
        (generation / place).write_text("changed")
        reported_changes.add(generation, "beta", file=place)
    reported_changes.add(generation, None, file="ComfyUI/custom_nodes/beta/__init__.py")
    now = alpha.commit({"more": ""})
    reported_changes.add(generation, "alpha", place=ALPHA, head=now)
    (site(generation) / "idna-3.7.dist-info").rename(site(generation) / "idna-3.6.dist-info")
    reported_changes.add(
        generation, "beta", gone=["idna-3.7.dist-info"], new=["idna-3.6.dist-info"]
    )
    (generation / reported_changes.CUSTOM_NODES / "friend").mkdir()
    reported_changes.add(generation, "beta", nodes=["friend", "went"])
    assert drift.lines(generation) == [
        "custom node beta itself changes main.py of the repository of ComfyUI",
        "custom node beta itself changes settings.json of its own repository",
        f"custom node alpha itself moved its own checkout from {str(before)[:12]} to {now[:12]}, "
        "which machine.lock doesn't name",
        "custom node beta removed idna 3.7, which machine.lock doesn't say",
        "custom node beta installed idna 3.6, which machine.lock doesn't say",
        "custom node beta put friend into custom_nodes",
    ]
