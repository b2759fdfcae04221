"""The record of GPUs that are out of service."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from comfy_machine.host.system import cordons, files, private_folder
from comfy_machine.spec.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    yield Layout(tmp_path)
    files.remove(private_folder.folder(tmp_path))


def test_a_gpu_is_cordoned_once_and_the_first_reason_stays(layout: Layout) -> None:
    assert cordons.read(layout) == {}
    assert cordons.add(layout, 1, "Xid 79", by_hand=False)
    assert not cordons.add(layout, 1, "another", by_hand=True)
    assert str(cordons.read(layout)[1]).endswith(", by the watcher: Xid 79")
    assert cordons.remove(layout, 1)
    assert not cordons.remove(layout, 1)
    assert cordons.read(layout) == {}


def test_none_is_lost_when_several_are_cordoned_at_once(layout: Layout) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda gpu: cordons.add(layout, gpu, "", by_hand=True), range(8)))
    assert [*cordons.read(layout)] == [*range(8)]


@pytest.mark.parametrize(
    "content", ["", "[]", '{"gpus": {"a": 1, "1": {"reason": "", "by_hand": true, "at": 1e300}}}']
)
def test_a_damaged_record_counts_as_none_and_is_replaced(layout: Layout, content: str) -> None:
    files.write_text(layout.cordoned, content)
    assert cordons.read(layout) == {}
    assert cordons.add(layout, 0, "", by_hand=True)
    assert [*cordons.read(layout)] == [0]


def test_a_folder_in_its_place_is_replaced(layout: Layout) -> None:
    layout.cordoned.mkdir(parents=True)
    assert cordons.add(layout, 0, "", by_hand=True)
    assert [*cordons.read(layout)] == [0]
