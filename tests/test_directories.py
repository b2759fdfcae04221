"""Shared folders: made, or one line that says which can't be and how to mend it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MachineMaker


def test_a_workspace_that_cannot_be_made_is_named(machine: MachineMaker) -> None:
    rig = machine()
    rig.spec["workspace"] = "/proc/nowhere"
    run = rig.doit("build", code=2)
    assert "/proc/nowhere can't be created" in run.output
    assert "sudo chown -R" in run.output
    assert "Traceback" not in run.output


def test_a_file_where_a_folder_belongs_is_named(machine: MachineMaker) -> None:
    rig = machine()
    (rig.workspace / "shared").mkdir()
    (rig.workspace / "shared" / "inputs").write_text("")
    run = rig.doit("build", code=2)
    assert "shared/inputs is a file, not a folder: move it away" in run.output


def test_a_folder_removed_by_hand_is_made_again(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit("build")
    rig.layout.outputs(0).rmdir()
    assert rig.doit("build").executed == {"directories"}


def test_a_real_folder_where_the_link_to_comfyui_belongs_is_refused(machine: MachineMaker) -> None:
    rig = machine()
    (rig.workspace / "ComfyUI").mkdir()
    (rig.workspace / "ComfyUI" / "mine.txt").write_text("keep")
    run = rig.doit("build", code=2)
    assert "but a file or folder is there: move it away" in run.output
    assert (rig.workspace / "ComfyUI" / "mine.txt").read_text() == "keep"


def test_what_lies_in_the_place_of_an_instances_folder_is_removed_and_an_unmounted_volume_stays(
    machine: MachineMaker, tmp_path: Path
) -> None:
    rig = machine()
    rig.doit("directories")
    databases, temp = rig.layout.databases(0), rig.layout.instance(0) / "temp"
    databases.write_text("rubbish")
    temp.symlink_to("temp")
    assert rig.doit("directories").executed == {"directories"}
    assert not databases.exists()
    assert not temp.is_symlink()
    databases.symlink_to(tmp_path / "volume")
    assert rig.doit("directories").executed == set()
    assert databases.is_symlink()


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("workspace", {"extra_roots": [{"path": "..", "read_only": True}]}),
        ("models.folder", {"folder": "{root}/mine"}),
        ("models.folder", {"folder": "link/mine"}),
        ("models.store", {"store": "{root}/.store"}),
        ("models.store", {"store": "link/.store"}),
    ],
)
def test_nothing_is_made_in_a_root_of_models_that_is_read_only(
    machine: MachineMaker, tmp_path: Path, name: str, spec: dict[str, object]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    given = {key: value.format(root=root) for key, value in spec.items() if isinstance(value, str)}
    roots = {"extra_roots": [{"path": str(root), "read_only": True}]}
    rig = machine(models={**roots, **spec, **given})
    (rig.workspace / "link").symlink_to(root)
    run = rig.doit("directories", code=1)
    changed = rig.folder if name == "workspace" else root
    assert f"{name} would change {changed}, which is read_only in models.extra_roots" in run.output
    assert list(root.iterdir()) == []
    assert not rig.layout.receipts.exists()
    rig.spec["models"]["extra_roots"][0]["read_only"] = False
    rig.doit("directories")
