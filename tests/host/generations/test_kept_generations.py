"""Which generations are kept, and which go first when their volume is full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_machine.host.generations import kept_generations
from comfy_machine.host.storage import digest_folders
from comfy_machine.host.storage.disk_space import DiskSpace, free
from comfy_machine.host.system import files
from comfy_machine.host.system.failure import Failure
from comfy_machine.spec.layout import Layout

MEGABYTE = 1_000_000


def make(layout: Layout, *names: str, environment: str | None = None) -> None:
    """Generations of one megabyte, the oldest first, each with an environment and a checkout."""
    for age, name in enumerate(names):
        folder, home = layout.generations / name, layout.environments / (environment or f"e-{name}")
        checkout = layout.sources / f"ComfyUI@{name}"
        for each in (folder, home, checkout):
            each.mkdir(parents=True, exist_ok=True)
        (folder / "main.py").write_bytes(b"x" * MEGABYTE)
        files.point(folder / "environment", os.path.relpath(home, folder))
        digest_folders.finish(folder, {"digest": name, "heads": {"ComfyUI": name}})
        digest_folders.finish(home, {"digest": name})
        os.utime(folder, (1000 + age, 1000 + age))


def be_current(layout: Layout, name: str) -> None:
    files.point(layout.state / "current", f"../generations/{name}")


def be_good(layout: Layout, *names: str) -> None:
    for name in names:
        kept_generations.remember(layout, name, 3)


def there(layout: Layout) -> set[str]:
    return {path.name for path in digest_folders.list_folders(layout.generations)}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "ws")


def test_kept_are_the_newest_good_ones_what_is_current_and_what_runs(layout: Layout) -> None:
    make(layout, "a", "b", "c", "d", "failed", "current")
    be_good(layout, "a", "b", "gone", "c", "d")
    be_current(layout, "current")
    assert kept_generations.kept(layout, 2) == {"c", "d", "current"}
    assert kept_generations.kept(layout, 9) == {"a", "b", "c", "d", "current"}
    with subprocess.Popen(["cat"], cwd=layout.generations / "failed", stdin=-1) as shell:
        assert kept_generations.kept(layout, 1) == {"d", "current", "failed"}
        shell.kill()
    be_good(layout, "a")
    assert kept_generations.kept(layout, 1) == {"a", "current"}, (
        "what was gone back to is the newest"
    )


def test_environments_and_checkouts_stay_with_their_generation(layout: Layout) -> None:
    make(layout, "a", "b")
    make(layout, "c", environment="e-b")
    unneeded = kept_generations.unneeded(layout, {"b"})
    assert {path.name for path in unneeded} == {"a", "c", "e-a", "ComfyUI@a", "ComfyUI@c"}
    files.write_receipt(layout.receipts / "source.json", {"commit": "a"})
    files.write_receipt(layout.receipts / "environment.json", {"folder": "e-a"})
    assert {path.name for path in kept_generations.unneeded(layout, {"b"})} == {
        "a",
        "c",
        "ComfyUI@c",
    }


def test_more_names_are_remembered_where_more_are_to_be_kept(layout: Layout) -> None:
    for number in range(15):
        kept_generations.remember(layout, str(number), 12)
    assert kept_generations.good(layout) == [str(number) for number in range(3, 15)]


def test_a_number_stays_with_its_generation_and_is_never_given_twice(layout: Layout) -> None:
    be_good(layout, "a", "b", "c")
    assert kept_generations.numbers(layout) == {"a": 1, "b": 2, "c": 3}
    be_good(layout, "a")
    assert kept_generations.numbers(layout) == {"a": 1, "b": 2, "c": 3}
    for number in range(12):
        kept_generations.remember(layout, str(number), 3)
    numbers = kept_generations.numbers(layout)
    assert "c" not in numbers
    assert numbers["11"] == 15
    kept_generations.remember(layout, "c", 3)
    assert kept_generations.numbers(layout)["c"] == 16


def test_generations_that_an_older_version_recorded_are_numbered_in_their_order(
    layout: Layout,
) -> None:
    files.write_receipt(layout.state / "healthy.json", {"generations": ["x", "y"]})
    assert kept_generations.numbers(layout) == {"x": 1, "y": 2}
    be_good(layout, "x")
    assert kept_generations.numbers(layout) == {"x": 1, "y": 2}
    be_good(layout, "z")
    assert kept_generations.numbers(layout) == {"x": 1, "y": 2, "z": 3}


@pytest.mark.parametrize("numbers", [None, [], {"x": "one"}, {"x": None}])
def test_damaged_numbers_are_given_anew(layout: Layout, numbers: object) -> None:
    record = {"generations": ["x", "y"], "numbers": numbers, "last": "?"}
    files.write_receipt(layout.state / "healthy.json", record)
    assert kept_generations.numbers(layout) == {"x": 1, "y": 2}


@pytest.fixture
def volume(layout: Layout) -> Iterator[Layout]:
    """A workspace on a volume of 10 MB."""
    layout.workspace.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=10m", "none", str(layout.workspace)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield layout
    subprocess.run(["umount", layout.workspace], check=True)


def test_when_room_is_short_the_oldest_go_and_only_as_many_as_it_takes(volume: Layout) -> None:
    make(volume, "a", "b", "failed", "c", "d")
    be_good(volume, "a", "b", "c", "d")
    be_current(volume, "d")
    volume.garbage.mkdir()
    (volume.garbage / "x").write_bytes(b"x" * MEGABYTE)
    room = free(volume.machine)
    assert kept_generations.make_room(volume, room) == []
    assert (volume.garbage / "x").exists(), "nothing goes while there is room"
    assert kept_generations.make_room(volume, room + MEGABYTE // 2) == []
    assert not (volume.garbage / "x").exists(), "what goes anyway goes first"
    assert kept_generations.make_room(volume, room + MEGABYTE * 3 // 2) == ["failed"]
    assert kept_generations.make_room(volume, room + MEGABYTE * 5 // 2) == ["a"]
    assert there(volume) == {"b", "c", "d"}
    assert {path.name for path in volume.environments.iterdir() if path.is_dir()} == {
        "e-b", "e-c", "e-d",
    }  # fmt: skip


def test_the_current_and_the_last_good_one_stay_however_little_room_there_is(
    volume: Layout,
) -> None:
    make(volume, "a", "b", "c", "new")
    be_good(volume, "a", "b", "c")
    be_current(volume, "new")
    assert kept_generations.make_room(volume, 1 << 40) == ["a", "b"]
    assert there(volume) == {"c", "new"}


def test_a_model_for_which_there_is_no_room_gets_it(volume: Layout) -> None:
    make(volume, "a", "b", "c")
    be_good(volume, "a", "b", "c")
    be_current(volume, "c")
    space = DiskSpace(volume.machine, lambda need: kept_generations.make_room(volume, need))
    there_is = free(volume.machine)
    space.reserve("one", there_is - MEGABYTE)
    assert there(volume) == {"a", "b", "c"}
    space.reserve("two", MEGABYTE * 3 // 2)
    assert there(volume) == {"b", "c"}
    with pytest.raises(Failure, match=r"^three: 5.0 MB needed"):
        space.reserve("three", 5 * MEGABYTE)
