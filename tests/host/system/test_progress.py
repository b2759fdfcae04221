from __future__ import annotations

from comfy_machine.host.system import thread_pool
from comfy_machine.host.system.progress import Progress, line


def test_a_snapshot_adds_up_what_threads_counted() -> None:
    progress = Progress("models")
    for name in "abc":
        progress.add(name, 1000)
    progress.add("failed", 500)

    def count(name: str) -> None:
        progress.begin(name, 1000, done=100)
        for _ in range(900):
            progress.advance(name, 1)

    thread_pool.each(count, "ab", 2)
    progress.end("a")
    progress.end("failed", failed=True)
    shot = progress.snapshot()
    assert (shot["files"], shot["files_done"], shot["files_failed"]) == (4, 1, 1)
    assert (shot["bytes"], shot["bytes_done"]) == (3000, 2000)
    assert shot["running"] == [{"name": "b", "bytes": 1000, "bytes_done": 1000}]
    assert shot["rate"] > 0
    assert line(shot).startswith("models: 1 of 4 files, 2 kB of 3 kB, ")


def test_what_begins_again_is_not_counted_twice() -> None:
    progress = Progress("models")
    for _ in range(2):
        progress.begin("a", 1000)
        progress.advance("a", 600)
    assert progress.snapshot()["bytes_done"] == 600
    assert progress.items["a"].moved == 1200


def test_a_total_is_unknown_while_one_file_is() -> None:
    progress = Progress("models")
    progress.begin("a", None)
    progress.advance("a", 5)
    assert progress.snapshot()["bytes"] is None
    assert progress.snapshot()["seconds_left"] is None
