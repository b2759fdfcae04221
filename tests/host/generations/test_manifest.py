"""What was done to a generation, and by whom: a person's edit is told from a process's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from comfy_machine.host.generations import manifest, reported_changes
from comfy_machine.host.repositories import git
from comfy_machine.host.storage import digest_folders
from comfy_machine.host.system import files
from tests.forge import Forge, Repository

ALPHA = "ComfyUI/custom_nodes/alpha"


@pytest.fixture
def generation(tmp_path: Path) -> Path:
    """ComfyUI with one custom node, proved."""
    folder = tmp_path / "0123"
    Forge(folder).repository("ComfyUI", {"main.py": "", ".gitignore": "custom_nodes/\n"})
    alpha = Forge(folder / "ComfyUI" / "custom_nodes").repository(
        "alpha", {"__init__.py": "x", "settings.json": "{}", "sub/a": "a", "run.sh": ""}
    )
    heads = {"ComfyUI": git.head(folder / "ComfyUI"), ALPHA: git.head(alpha.folder)}
    files.point(folder / "environment", folder)
    receipt = {"digest": "0123", "heads": heads, "links": {}, "nodes": ["alpha"], "scripts": {}}
    digest_folders.finish(folder, receipt)
    manifest.stamp(folder)
    return folder


def write(file: Path, text: str) -> None:
    """With another size than before: a file system's clock is coarse."""
    file.write_text(text)


def damage(folder: Path) -> str | None:
    return digest_folders.damaged(folder, digest_folders.read(folder), manifest.damage)


def test_a_persons_edit_and_removal_are_found(generation: Path) -> None:
    alpha = generation / ALPHA
    write(alpha / "settings.json", '{"mine": 1}')
    assert manifest.edited(generation) == {alpha: ["settings.json"]}
    assert damage(generation) is None
    (alpha / "sub" / "a").unlink()
    assert damage(generation) == f"{ALPHA}/sub/a is missing"


def test_what_changed_while_a_process_ran_is_its_own(generation: Path) -> None:
    alpha = Repository(generation / ALPHA)
    write(alpha.folder / "__init__.py", "a person's")
    watch = manifest.watch(generation)
    write(alpha.folder / "settings.json", '{"by": "a process"}')
    (alpha.folder / "sub" / "a").unlink()
    watch.end()
    own = reported_changes.read(generation)
    assert own.files == {f"{ALPHA}/settings.json": "alpha", f"{ALPHA}/sub/a": "alpha"}
    assert manifest.edited(generation) == {alpha.folder: ["__init__.py"]}, "that was before"
    assert manifest.rewritten(generation) == {ALPHA: ["settings.json"]}
    assert damage(generation) is None
    noted = reported_changes.file_of(generation).read_text()
    manifest.watch(generation).end()
    assert reported_changes.file_of(generation).read_text() == noted


def test_a_second_proof_takes_no_edit_for_its_own(generation: Path) -> None:
    write(generation / ALPHA / "__init__.py", "a person's")
    manifest.watch(generation).end()
    assert manifest.edited(generation) == {generation / ALPHA: ["__init__.py"]}


def test_a_checkout_that_a_process_moved_is_taken_as_it_is(generation: Path) -> None:
    alpha = Repository(generation / ALPHA)
    watch = manifest.watch(generation)
    alpha.commit({"sub/a": None, "settings.json": '{"a later": "commit"}'})
    watch.end()
    assert reported_changes.read(generation).moved(ALPHA, git.head(alpha.folder))
    assert damage(generation) is None
    assert (manifest.edited(generation), manifest.rewritten(generation)) == ({}, {})
    assert not manifest.intact(generation, digest_folders.read(generation), ALPHA)
    alpha.commit({"by": "hand"})
    assert str(damage(generation)).startswith(f"{ALPHA} is at ")


def test_a_process_that_makes_a_file_executable_edits_nothing(generation: Path) -> None:
    alpha = generation / ALPHA
    watch = manifest.watch(generation)
    (alpha / "run.sh").chmod(0o755)
    watch.end()
    os.utime(alpha / "__init__.py")
    assert manifest.edited(generation) == {}


def test_what_a_script_moved_is_not_missing(generation: Path) -> None:
    alpha = generation / ALPHA
    (alpha / "sub" / "a").rename(alpha / "a")
    manifest.stamp(generation, ALPHA)
    assert damage(generation) is None
    assert manifest.intact(generation, digest_folders.read(generation), ALPHA)
    (alpha / "run.sh").unlink()
    assert not manifest.intact(generation, digest_folders.read(generation), ALPHA), (
        "a person did that"
    )


def test_notes_that_can_not_be_read_are_none(generation: Path) -> None:
    lines = ["{", "[]", "5", '{"pack": null, "file": "x"}', '{"pack": "a", "new": 5}', "[" * 99999,
             '{"pack": 5, "gone": ["g"]}', '{"head": "h"}']  # fmt: skip
    reported_changes.file_of(generation).write_text("\n".join(lines))
    assert reported_changes.read(generation) == reported_changes.Changes(
        files={"x": None}, gone={"g": None}
    )


def test_what_is_removed_takes_its_notes_along(generation: Path) -> None:
    reported_changes.add(generation, "alpha", file="x")
    beside = generation.with_name("0123.2.changes.jsonl")
    beside.write_text("")
    digest_folders.remove(generation)
    assert list(generation.parent.iterdir()) == [beside]
