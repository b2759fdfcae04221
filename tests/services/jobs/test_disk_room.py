"""Which results go when the disk runs low."""

from __future__ import annotations

import os
import time
from pathlib import Path

from comfy_machine.services.jobs import disk_room, job_files
from comfy_machine.spec.layout import Layout
from tests.host.storage.test_full_disks import mounted

HOUR = 3600.0


def test_those_that_ended_first_go_first_and_none_of_the_last_hour(tmp_path: Path) -> None:
    layout, now = Layout(tmp_path), time.time()
    ended = {"old": 3.0, "older": 4.0, "new": 0.9, "runs": 0.0}
    for name in (*ended, "unknown", "unknown and new"):
        job_files.folder_of(layout, name).mkdir(parents=True)
    touched = now - 3.5 * HOUR
    os.utime(job_files.folder_of(layout, "unknown"), (touched, touched))

    def when(job: str) -> float | None:
        return now - ended[job] * HOUR if job in ended else None

    assert disk_room.oldest_first(layout, when) == ["older", "unknown", "old"]


def test_a_disk_lacks_room_when_less_than_a_twentieth_is_free(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert not disk_room.lacks(layout), "without results there is nothing to remove"
    with mounted(layout.outputs(0).parent, "size=10m") as disk:
        job_files.folder_of(layout, "a").mkdir(parents=True)
        (disk / "a").write_bytes(bytes(9_000_000))
        assert not disk_room.lacks(layout)
        (disk / "b").write_bytes(bytes(1_200_000))
        assert disk_room.lacks(layout)
