"""The files of a job: where they are, and when they go."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from comfy_machine.services.jobs import job_files
from comfy_machine.spec.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def written(layout: Layout, name: str, content: str = "picture") -> Path:
    path = layout.outputs(0) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def named(name: str, folder: str = "", kind: str = "output") -> dict[str, str]:
    return {"filename": name, "subfolder": folder, "type": kind}


def names(layout: Layout, job: str) -> set[str]:
    return {path.name for path in job_files.folder_of(layout, job).iterdir()} - {job_files.SOURCES}


def test_each_file_has_a_name_of_its_own_and_the_original_stays(layout: Layout) -> None:
    first, second = written(layout, "a/x.png", "1"), written(layout, "b/x.png", "2")
    outputs: dict[str, Any] = {
        "1": {"images": [named("x.png", "a"), named("x.png", "b")], "text": ["done"]},
        "2": {"images": [named("x.png", "a")]},
    }
    found = job_files.collect(layout, 0, "job", outputs)
    assert found["1"]["images"] == [named("x.png", "jobs/job"), named("x-2.png", "jobs/job")]
    assert found["2"]["images"] == [named("x.png", "jobs/job")]
    assert found["1"]["text"] == ["done"]
    assert names(layout, "job") == {"x.png", "x-2.png"}
    assert job_files.folder_of(layout, "job").joinpath("x.png").samefile(first)
    assert second.read_text() == "2"


@pytest.mark.parametrize(
    "image", [named("none.png"), named("passwd", "../../../../etc"), named("/etc/passwd")]
)
def test_what_is_not_there_or_elsewhere_is_missing(layout: Layout, image: dict[str, str]) -> None:
    written(layout, "x.png")
    with pytest.raises(job_files.Missing):
        job_files.collect(layout, 0, "job", {"1": {"images": [image]}})


def test_a_job_takes_its_originals_along_but_no_newer_file(layout: Layout) -> None:
    first, second = written(layout, "x.png"), written(layout, "y.png")
    images = [named("x.png"), named("y.png")]
    job_files.collect(layout, 0, "job", {"1": {"images": images}})
    second.unlink()
    second.write_text("of another job")
    job_files.drop(layout, "job")
    assert not first.exists()
    assert second.read_text() == "of another job"
    assert not job_files.folder_of(layout, "job").exists()


def test_only_what_is_old_and_unknown_goes(layout: Layout) -> None:
    written(layout, "x.png")
    for job in ("known", "old", "new"):
        job_files.collect(layout, 0, job, {"1": {"images": [named("x.png")]}})
    for job in ("known", "old"):
        long_ago = time.time() - 100
        os.utime(job_files.folder_of(layout, job), (long_ago, long_ago))
    job_files.sweep(layout, {"known"}, 50)
    left = {path.name for path in job_files.folder_of(layout, "").iterdir()}
    assert left == {"known", "new"}


def test_without_any_job_there_is_nothing_to_sweep(layout: Layout) -> None:
    job_files.sweep(layout, (), 0)
