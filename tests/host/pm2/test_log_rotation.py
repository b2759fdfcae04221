"""Which logs are rotated when, and what is kept; that no line is lost is seen under PM2."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_machine.host.pm2 import log_rotation, pm2
from comfy_machine.host.pm2.log_rotation import Rules, mend, rotate
from comfy_machine.host.system import files, private_folder
from comfy_machine.spec.layout import Layout

DAY = 86400.0


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Layout]:
    monkeypatch.setattr(log_rotation, "QUIET", 0.001)
    layout = Layout(tmp_path)
    layout.logs.mkdir(parents=True)
    yield layout
    files.remove(private_folder.folder(tmp_path))


def write(layout: Layout, name: str, text: str) -> None:
    (layout.logs / name).write_text(text)


def there(layout: Layout) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(layout.logs.iterdir())}


def age(layout: Layout, name: str, seconds: float) -> None:
    """Let a log be as old, as far as is known of it."""
    note = layout.state / "logs.json"
    known = json.loads(note.read_text())
    known[name][1] -= seconds
    note.write_text(json.dumps(known))


def test_a_log_above_its_size_moves_on_and_those_before_it_too(layout: Layout) -> None:
    rules = Rules(max_size=3, max_age=0, keep=2)
    for text in ("first", "second", "third"):
        write(layout, "comfyui-gpu0.log", text)
        assert rotate(layout, rules) == ["comfyui-gpu0.log"]
    assert there(layout) == {"comfyui-gpu0.log.1": "third", "comfyui-gpu0.log.2": "second"}
    write(layout, "comfyui-gpu0.log", "new")
    assert rotate(layout, rules) == []


@pytest.mark.parametrize("name", ["watcher", "health-server"])
def test_fewer_that_are_kept_and_none(layout: Layout, name: str) -> None:
    for number in range(1, 6):
        write(layout, f"{name}.log.{number}", str(number))
    write(layout, f"{name}.log", "text")
    rotate(layout, Rules(1, 0, 2))
    assert there(layout) == {f"{name}.log.1": "text", f"{name}.log.2": "1"}
    write(layout, f"{name}.log", "text")
    rotate(layout, Rules(1, 0, 0))
    assert there(layout) == {}


def test_a_log_is_rotated_by_age_unless_it_is_empty(layout: Layout) -> None:
    rules = Rules(max_size=1000, max_age=7 * DAY, keep=5)
    write(layout, "comfyui-gpu0.log", "text")
    write(layout, "comfyui-gpu1.log", "")
    write(layout, "worker-gpu0.log", "text")
    assert rotate(layout, rules) == []
    age(layout, "comfyui-gpu0.log", 7 * DAY)
    age(layout, "comfyui-gpu1.log", 7 * DAY)
    age(layout, "worker-gpu0.log", 6 * DAY)
    assert rotate(layout, rules) == ["comfyui-gpu0.log"]
    write(layout, "comfyui-gpu0.log", "a new one")
    assert rotate(layout, rules) == []
    age(layout, "worker-gpu0.log", 30 * DAY)
    assert rotate(layout, Rules(1000, 0, 5)) == [], "0 is never"


def test_the_logs_of_tasks_and_of_others_are_left_alone(layout: Layout) -> None:
    names = ["health.gpu0.log", "workers.worker-gpu0.log", "validation.log", "watcher.start.log"]
    for name in names:
        write(layout, name, "text")
    assert rotate(layout, Rules(1, 1, 5)) == []


def test_what_was_killed_before_pm2_reopened_its_logs_is_mended(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Layout] = []
    monkeypatch.setattr(pm2, "reopen_logs", asked.append)
    write(layout, "comfyui-gpu0.log", "text")
    write(layout, "comfyui-gpu0.log.1", "text")
    mend(layout)
    assert asked == []
    (layout.logs / "comfyui-gpu0.log").unlink()
    mend(layout)
    assert asked == [layout]
