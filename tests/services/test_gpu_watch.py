"""GPUs that vanish or report errors of their hardware are cordoned, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comfy_machine.host.system import cordons, files, private_folder
from comfy_machine.host.system.run_lock import RunLock
from comfy_machine.services import gpu_watch
from comfy_machine.services.gpu_watch import Card, GpuWatch
from comfy_machine.spec.layout import Layout
from tests.cards import RESET_REQUIRED, Nvml, card, lost

Maker = Callable[..., GpuWatch]


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    found = Layout(tmp_path)
    found.state.mkdir(parents=True)
    private_folder.make(tmp_path)
    yield found
    files.remove(private_folder.folder(tmp_path))


@pytest.fixture
def watch(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Maker:
    monkeypatch.setattr(gpu_watch, "LOOK_EVERY", 0.0)

    def make(*, pinned: bool = False, acts: bool = True) -> GpuWatch:
        cards = [Card(gpu, f"comfyui-gpu{gpu}", (f"fetch-gpu{gpu}",)) for gpu in (0, 1)]
        return GpuWatch(layout, cards, pinned=pinned, acts=acts)

    return make


def reasons(layout: Layout) -> dict[int, str]:
    return {gpu: each.reason for gpu, each in cordons.read(layout).items()}


def test_a_gpu_that_reports_an_error_of_its_hardware_is_cordoned(
    layout: Layout, nvml: Nvml, watch: Maker, capsys: pytest.CaptureFixture[str]
) -> None:
    nvml.show(card(1), card(2))
    watched = watch()
    watched.step()
    nvml.show(card(1, xids=[13, 31]), card(2, xids=[43, 79]))
    watched.step()
    why = "GPU 1 (NVIDIA H100 80GB HBM3) reported Xid 79 (see dmesg)"
    assert reasons(layout) == {1: why}
    assert not cordons.read(layout)[1].by_hand
    assert f"comfyui-gpu1 is stopped, and its GPU cordoned: {why}" in capsys.readouterr().out


@pytest.mark.parametrize("pinned", [False, True])
def test_a_gpu_that_is_lost_counts_the_second_time(
    layout: Layout, nvml: Nvml, watch: Maker, pinned: bool
) -> None:
    sound = card(11), card(12)
    files.write_receipt(layout.gpus, {"gpus": {f"comfyui-gpu{n}": sound[n].uuid for n in (0, 1)}})
    nvml.show(*sound)
    watched = watch(pinned=pinned)
    watched.step()
    nvml.show(sound[0], lost(12))
    watched.step()
    assert reasons(layout) == {}
    nvml.show(*sound)
    watched.step()
    nvml.show(sound[0], lost(12))
    watched.step()
    assert reasons(layout) == {}, "once after it was sound"
    watched.step()
    assert [*reasons(layout)] == [1]
    assert reasons(layout)[1].endswith(("NVML says: GPU is lost", f"({sound[1].uuid}) vanished"))


def test_one_that_is_gone_is_known_by_its_uuid_and_the_others_stay(
    layout: Layout, nvml: Nvml, watch: Maker
) -> None:
    nvml.show(card(21), card(22))
    watched = watch()
    watched.step()
    nvml.show(card(22))
    watched.step()
    watched.step()
    assert reasons(layout) == {0: f"GPU 0 ({card(21).uuid}) vanished"}


def test_it_waits_for_the_run_that_is_on_and_only_tells_where_it_may_not_act(
    layout: Layout, nvml: Nvml, watch: Maker, capsys: pytest.CaptureFixture[str]
) -> None:
    ill = card(32, errors={"nvmlDeviceGetMemoryInfo_v2": RESET_REQUIRED})
    nvml.show(card(31), ill)
    watched, teller = watch(), watch(acts=False)
    lock = RunLock(layout.workspace)
    lock.take("a test")
    for each in (watched, watched, teller, teller, teller):
        each.step()
    assert reasons(layout) == {}
    said = capsys.readouterr().out
    assert said.count("comfyui-gpu1: GPU 1 (NVIDIA H100 80GB HBM3), NVML says: GPU requires") == 1
    lock.give_back()
    watched.step()
    assert [*reasons(layout)] == [1]
