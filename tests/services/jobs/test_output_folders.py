"""Where the files lie that instances read and write."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_machine.services.jobs.output_folders import OutputFolders
from comfy_machine.spec.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "ws")


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_folder_of_the_instance_comes_first(layout: Layout) -> None:
    folders = OutputFolders(layout)
    first, second = (write(layout.outputs(gpu) / "sub" / "a.png") for gpu in (1, 11))
    assert folders.locate("a.png", "sub", "output", "machine_gpu11") == second.resolve()
    assert folders.locate("a.png", "sub", "output", "machine_gpu1") == first.resolve()
    assert folders.locate("a.png", "sub", "output") == first.resolve()
    assert folders.locate("a.png", "", "output") is None
    temporary = write(layout.instance(1) / "temp" / "t.png")
    assert folders.locate("t.png", "", "temp", "machine_gpu1") == temporary.resolve()


def test_the_files_of_a_job_lie_in_one_folder(layout: Layout) -> None:
    folders = OutputFolders(layout)
    file = write(layout.outputs(0).parent / "jobs" / "1" / "a.png")
    for kind in ("output", "temp"):
        assert folders.locate("a.png", "jobs/1", kind, "machine_gpu0") == file.resolve()
    assert folders.locate("a.png", "jobs/2", "output") is None
    assert folders.locate("a.png", "1", "output") is None


def test_no_file_of_another_folder_is_found(layout: Layout) -> None:
    folders = OutputFolders(layout)
    write(layout.outputs(0) / "a.png")
    write(layout.workspace / "secret")
    (layout.outputs(0) / "link").symlink_to(layout.workspace)
    for name, subfolder in [
        ("secret", "../../.."),
        ("../../../secret", ""),
        ("secret", "link"),
        ("secret", str(layout.workspace)),
        ("", ""),
        ("..", ""),
        ("a.png\0", ""),
    ]:
        assert folders.locate(name, subfolder, "output") is None
    assert folders.locate("a.png", "", "other") is None


def test_an_outputs_folder_may_be_a_link_itself(layout: Layout, tmp_path: Path) -> None:
    real = write(tmp_path / "disk" / "a.png").parent
    layout.outputs(0).parent.mkdir(parents=True)
    layout.outputs(0).symlink_to(real)
    assert OutputFolders(layout).locate("a.png", "", "output") == real / "a.png"
