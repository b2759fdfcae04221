"""GPUs: the build needs none, `up` starts nothing on one that can't be used, and says why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from comfy_machine import gpus
from comfy_machine.engine.messages import Messages
from comfy_machine.engine.run import Run
from comfy_machine.host.pm2 import apps
from comfy_machine.host.system import gpu
from comfy_machine.spec import load
from tests.cards import EXCLUSIVE_PROCESS, GIB, PROHIBITED, Card, Nvml, card, lost, uuid
from tests.conftest import MachineMaker
from tests.rig import Rig

no_gpu = pytest.mark.skipif(gpu.count() > 0, reason="this machine has a GPU")


@no_gpu
@pytest.mark.parametrize("gpus", ["auto", 2])
def test_without_a_gpu_the_build_is_finished_and_up_says_what_to_do(
    machine: MachineMaker, gpus: object
) -> None:
    rig = machine(instances={"gpus": gpus, "cpu_only": False})
    run = rig.doit(code=2)
    assert "validation" in run.executed
    assert run.failed == {"gpus"}
    assert "in an image build use doit build" in run.output
    assert "instances.cpu_only: true" in run.output


@no_gpu
def test_the_build_needs_no_gpu(machine: MachineMaker) -> None:
    rig = machine(instances={"gpus": "auto", "cpu_only": False})
    rig.doit("build")


def test_cpu_only_can_come_from_the_environment(machine: MachineMaker, nvml: Nvml) -> None:
    rig = machine(instances={"gpus": "auto", "cpu_only": False})
    rig.env |= nvml.show(lost(1)).env
    rig.doit(COMFYUI_CPU_ONLY="true")
    assert rig.healthy()
    assert nvml.calls() == []


Gate = Callable[..., "str | None"]


@pytest.fixture
def messages() -> Messages:
    return Messages()


@pytest.fixture
def gate(tmp_path: Path, messages: Messages) -> Gate:
    """Asks the step: what it refuses to start instances for, None when it lets them."""

    def gate(auto: int = 0, **instances: object) -> str | None:
        spec = {"workspace": "ws", "comfyui": {}, "instances": instances}
        file = tmp_path / "machine.yaml"
        file.write_text(yaml.safe_dump(spec))
        machine = load(file, {"HOME": str(tmp_path)})
        run = Run(machine, machine.instances_for(auto), messages=messages)
        [task] = gpus.tasks(run)
        if task["uptodate"][0]():
            return None
        [(perform, arguments)] = task["actions"]
        failed = perform(*arguments)
        return str(failed.get_msg()).strip() if failed else None

    return gate


@pytest.fixture
def start() -> Iterator[Callable[..., int]]:
    """Starts a program that waits, with these variables; gives its pid."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str = "", **env: str) -> int:
        wait = "print('up', flush=True); sys.stdin.read()"
        process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; {code}{wait}"],
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process.pid

    yield start
    for process in started:
        process.communicate()


def test_free_gpus_are_let_through_without_a_word(
    gate: Gate, messages: Messages, nvml: Nvml
) -> None:
    nvml.show(card(1, used=GIB), card(2))
    assert gate(gpus=2) is None
    assert gate(auto=2, gpus="auto") is None
    assert gate(gpus=[1]) is None
    assert messages.warnings == []


@pytest.mark.parametrize(
    ("auto", "wanted", "message"),
    [
        (0, [1, 2, 3], "no GPU 2, 3 here, there are 2: correct instances.gpus"),
        (0, 3, "no GPU 2 here, there are 2: correct instances.gpus"),
        (3, "auto", "no GPU 2 here, there are 2: dmesg may show why; or set instances.gpus: 2"),
        (0, "auto", "gpus: auto found no /dev/nvidia<N>, but the driver shows 2: set "
                    "instances.gpus: 2"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("pin", ["index", "uuid"])
def test_gpus_that_are_not_there_are_named_all(
    gate: Gate, nvml: Nvml, auto: int, wanted: object, message: str, pin: str
) -> None:
    nvml.show(card(1), card(2))
    assert gate(auto, gpus=wanted, pin=pin) == message


def test_a_driver_that_shows_no_gpu_is_told_apart_from_no_driver(gate: Gate, nvml: Nvml) -> None:
    nvml.show()
    assert str(gate(gpus=1)).startswith("the NVIDIA driver shows no GPU here: a container needs")


def test_a_driver_that_fails_is_quoted(gate: Gate, nvml: Nvml) -> None:
    nvml.show(card(1), init=18)
    assert "NVML says: RM has detected an NVML/RM version mismatch" in str(gate(gpus=1))


@pytest.mark.parametrize("pin", ["index", "uuid"])
def test_a_gpu_that_fell_off_the_bus_is_refused(gate: Gate, nvml: Nvml, pin: str) -> None:
    nvml.show(card(1), lost(2), card(3))
    assert gate(gpus=3, pin=pin) == (
        "GPU 1 is unusable, NVML says: GPU is lost: reset it (nvidia-smi -i 1 --gpu-reset), "
        "reboot, or leave it out of instances.gpus"
    )
    assert gate(gpus=[0, 2], pin=pin) is None


def test_a_gpu_that_another_fills_is_refused_with_its_name(
    gate: Gate, nvml: Nvml, start: Callable[..., int]
) -> None:
    pid = start()
    nvml.show(card(1), card(2, used=78 * GIB, compute=[(pid, 70 * GIB)], graphics=[(4194305, GIB)]))
    said_ = str(gate(gpus=2))
    assert said_.startswith(
        "GPU 1 (NVIDIA H100 80GB HBM3) is full, 78.0 GiB of 80.0 GiB used by "
        f"pid {pid} ({sys.executable} -c import sys;"
    )
    assert said_.endswith(
        ", 70.0 GiB), pid 4194305, not visible from here, 1.0 GiB: end those processes, or leave "
        "it out of instances.gpus"
    )
    assert gate(gpus=[0]) is None


def test_one_that_nobody_visible_fills_is_refused_too(gate: Gate, nvml: Nvml) -> None:
    nvml.show(card(1, used=72 * GIB))
    assert gate(gpus=1) == (
        "GPU 0 (NVIDIA H100 80GB HBM3) is full, 72.0 GiB of 80.0 GiB used by processes that "
        "aren't visible here (another container?): end those processes, or leave it out of "
        "instances.gpus"
    )


@pytest.mark.parametrize(("used", "warned"), [(3, False), (5, True), (71, True)])
def test_a_gpu_that_others_use_a_part_of_is_a_warning(
    gate: Gate, messages: Messages, nvml: Nvml, used: int, warned: bool
) -> None:
    nvml.show(card(1, used=used * GIB, compute=[(4194305, used * GIB)]))
    assert gate(gpus=1) is None
    assert messages.warnings == warned * [
        f"GPU 0 (NVIDIA H100 80GB HBM3): {used}.0 GiB of 80.0 GiB used by pid 4194305, not "
        f"visible from here, {used}.0 GiB; comfyui-gpu0 gets the rest"
    ]


CHILD = (
    "import subprocess; child = subprocess.Popen([sys.executable, '-c', 'import sys; "
    "sys.stdin.read()'], stdin=subprocess.PIPE, env={}); print(child.pid, file=sys.stderr); "
)


@pytest.mark.parametrize("known", [True, False])
def test_what_ours_and_their_children_use_is_no_strangers(
    gate: Gate,
    messages: Messages,
    nvml: Nvml,
    start: Callable[..., int],
    tmp_path: Path,
    known: bool,
) -> None:
    marks = {apps.WORKSPACE: str(tmp_path / "ws"), apps.NAME: "worker-gpu0"}
    pid = start(CHILD, **(marks if known else {}))
    [child] = psutil.Process(pid).children()
    users = [(pid, 40 * GIB), (child.pid, 38 * GIB)]
    nvml.show(card(1, used=78 * GIB, compute=users, mode=EXCLUSIVE_PROCESS))
    refused = gate(gpus=1)
    nvml.show(card(1, used=78 * GIB, compute=[(each, None) for each, _ in users]))
    assert (refused is None, gate(gpus=1) is None, messages.warnings) == (known, known, [])
    child.kill()


def test_a_gpu_that_takes_no_programs_is_refused(gate: Gate, nvml: Nvml) -> None:
    nvml.show(card(1), card(2, mode=PROHIBITED))
    assert gate(gpus=2) == (
        "GPU 1 (NVIDIA H100 80GB HBM3) accepts no programs (compute mode Prohibited): "
        "run nvidia-smi -i 1 -c DEFAULT"
    )


def test_a_gpu_that_is_anothers_alone_is_refused(gate: Gate, nvml: Nvml) -> None:
    nvml.show(card(1, mode=EXCLUSIVE_PROCESS, graphics=[(4194305, GIB)]))
    assert gate(gpus=1) is None
    nvml.show(card(1, mode=EXCLUSIVE_PROCESS, compute=[(4194305, GIB)]))
    assert gate(gpus=1) == (
        "GPU 0 (NVIDIA H100 80GB HBM3) is in exclusive use (compute mode Exclusive_Process) by pid "
        "4194305, not visible from here, 1.0 GiB: end that process, or run nvidia-smi -i 0 "
        "-c DEFAULT"
    )


def test_a_gpu_that_is_split_is_refused_unless_a_part_is_named(gate: Gate, nvml: Nvml) -> None:
    nvml.show(card(1), card(2, mig=1))
    assert gate(gpus=2) == (
        "GPU 1 (NVIDIA H100 80GB HBM3) is split by MIG: run nvidia-smi -i 1 -mig 0, or name one "
        "of its parts (nvidia-smi -L): instances.overrides: {1: {env: "
        "{CUDA_VISIBLE_DEVICES: MIG-…}}}"
    )
    first, second = ({"env": {"CUDA_VISIBLE_DEVICES": f"MIG-{part}"}} for part in (1, 2))
    assert gate(gpus=2, overrides={1: first}) is None
    assert gate(gpus=3, overrides={1: first, 2: second}) is None, "both of one GPU"
    nvml.show(card(1, mig=1))
    assert gate(gpus=1, **first) is None


def test_all_that_stands_in_the_way_is_said_at_once(gate: Gate, nvml: Nvml) -> None:
    nvml.show(card(1, mode=PROHIBITED), lost(2))
    found = str(gate(gpus=3))
    for part in (
        "no GPU 2 here",
        "GPU 0 (NVIDIA H100 80GB HBM3) accepts no",
        "; GPU 1 is unusable",
    ):
        assert part in found
    assert "\n" not in found


def pins(folder: Path) -> dict[str, str]:
    """Instance → UUID as recorded, without what their names share."""
    file = folder / "ws/.machine/state/gpus.json"
    recorded = json.loads(file.read_text())["gpus"] if file.exists() else {}
    return {name.removeprefix("comfyui-"): uuid for name, uuid in recorded.items()}


def test_a_new_instance_gets_the_gpu_of_its_index(gate: Gate, nvml: Nvml, tmp_path: Path) -> None:
    nvml.show(card(1), card(2), card(3))
    assert gate(gpus=[0, 2], pin="uuid") is None
    assert pins(tmp_path) == {"gpu0": uuid(1), "gpu2": uuid(3)}


def test_a_new_gpu_is_given_to_a_new_instance(gate: Gate, nvml: Nvml, tmp_path: Path) -> None:
    nvml.show(card(1), card(2))
    assert gate(gpus=2, pin="uuid") is None
    before = pins(tmp_path)
    nvml.show(card(3), card(2), card(1))
    assert gate(gpus=3, pin="uuid") is None
    assert pins(tmp_path) == before | {"gpu2": uuid(3)}


def test_the_gpu_of_an_instance_that_left_is_given_to_another_last(
    gate: Gate, nvml: Nvml, tmp_path: Path
) -> None:
    nvml.show(card(1), card(2), card(3))
    assert gate(gpus=3, pin="uuid") is None
    before = pins(tmp_path)
    nvml.show(card(4), card(1), card(2), card(3))
    assert gate(gpus=[0, 1, 3], pin="uuid") is None
    assert pins(tmp_path) == before | {"gpu3": uuid(4)}


@pytest.mark.parametrize("pin", ["index", "uuid"])
def test_an_instance_on_a_part_of_a_gpu_has_that_and_none_recorded(
    gate: Gate, nvml: Nvml, tmp_path: Path, pin: str
) -> None:
    nvml.show(card(1, mig=1), card(2))
    part = {"env": {"CUDA_VISIBLE_DEVICES": "MIG-1"}}
    assert gate(gpus=2, pin=pin, overrides={0: part}) is None
    machine = load(tmp_path / "machine.yaml", {"HOME": str(tmp_path)})
    devices = [gpus.device_of(Run(machine), each) for each in machine.instances_for(0)]
    assert devices == ["MIG-1", uuid(2) if pin == "uuid" else "1"]
    assert pins(tmp_path) == ({"gpu1": uuid(2)} if pin == "uuid" else {})


def test_a_recorded_gpu_that_is_gone_is_refused_by_name(
    gate: Gate, nvml: Nvml, tmp_path: Path
) -> None:
    nvml.show(card(1), card(2), card(3))
    assert gate(gpus=3, pin="uuid") is None
    before = pins(tmp_path)
    file = tmp_path / "ws/.machine/state/gpus.json"
    nvml.show(card(1), card(3))
    assert gate(gpus=2, pin="uuid") == (
        f"{uuid(2)}, the GPU of comfyui-gpu1, is missing: put it back, or delete its line "
        f"in {file} to give comfyui-gpu1 another"
    )
    nvml.show(card(1), lost(2), card(3))
    assert "is missing (GPU 1: GPU is lost): put it back" in str(gate(gpus=2, pin="uuid"))
    assert pins(tmp_path) == before
    line = next(line for line in file.read_text().splitlines() if uuid(2) in line)
    file.write_text(file.read_text().replace(f"{line}\n", ""))
    nvml.show(card(1), card(3))
    assert gate(gpus=2, pin="uuid") is None
    assert pins(tmp_path) == {"gpu0": uuid(1), "gpu1": uuid(3)}, "gpu2's, which left machine.yaml"


def test_no_gpu_is_given_to_two(gate: Gate, nvml: Nvml, tmp_path: Path) -> None:
    nvml.show(card(1), card(2), card(3))
    assert gate(gpus=[0, 2], pin="uuid") is None
    nvml.show(card(1), card(3))
    assert gate(gpus=[0, 1, 2], pin="uuid") == (
        f"no GPU is free for comfyui-gpu1: {tmp_path}/ws/.machine/state/gpus.json gives all usable "
        "ones to others: correct instances.gpus, or delete a line there"
    )


def test_a_damaged_record_of_gpus_is_not_made_anew(gate: Gate, nvml: Nvml, tmp_path: Path) -> None:
    nvml.show(card(1))
    file = tmp_path / "ws/.machine/state/gpus.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"gpus": {"comfyui-gpu0": "GPU-1",}}')
    assert gate(gpus=1, pin="uuid") == (
        f"{file} is damaged: repair it, or delete it to pin every instance again"
    )


def test_nothing_is_recorded_where_something_is_refused(
    gate: Gate, nvml: Nvml, tmp_path: Path
) -> None:
    nvml.show(card(1), card(2, mode=PROHIBITED))
    assert gate(gpus=2, pin="uuid")
    assert pins(tmp_path) == {}


def device(rig: Rig, number: int) -> str:
    """What an instance that runs was told to use."""
    env = psutil.Process(rig.running()[f"comfyui-gpu{number}"].pid).environ()
    assert env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    return env["CUDA_VISIBLE_DEVICES"]


@pytest.fixture
def with_gpus(machine: MachineMaker, nvml: Nvml) -> Callable[..., Rig]:
    """Makes a machine of the simulator with two GPUs that are only said to be there."""

    def make(*cards: Card, **instances: Any) -> Rig:
        pretended = {"gpus": 2, "cpu_only": False, "env": {"SIMULATE_GPU": "2"}}
        rig = machine(instances=pretended | instances)
        rig.env |= nvml.show(*cards).env
        return rig

    return make


def test_instances_run_each_on_its_gpu_and_the_next_run_does_not_ask_the_driver(
    with_gpus: Callable[..., Rig], nvml: Nvml
) -> None:
    rig = with_gpus(card(1), card(2, mig=1), overrides={1: {"env": {}}})
    rig.spec["instances"]["overrides"][1]["env"]["CUDA_VISIBLE_DEVICES"] = "MIG-1"
    rig.doit()
    assert (device(rig, 0), device(rig, 1)) == ("0", "MIG-1")
    for number in (0, 1):
        assert rig.client(number).get("/system_stats")["devices"][0]["type"] == "cuda"
    assert not rig.layout.gpus.exists()
    assert nvml.calls()
    nvml.show(lost(1), card(2, mode=PROHIBITED))
    assert rig.doit().executed == set()
    assert nvml.calls() == []


def test_what_runs_is_not_asked_after_when_another_is_started(
    with_gpus: Callable[..., Rig], nvml: Nvml
) -> None:
    rig = with_gpus(card(1), card(2), gpus=1)
    rig.doit()
    pid = rig.running()["comfyui-gpu0"].pid
    # As a container sees it: no process is shown, its own no more than others.
    nvml.show(card(1, used=79 * GIB), card(2, used=79 * GIB))
    rig.spec["instances"]["gpus"] = 2
    run = rig.doit(code=2)
    assert run.failed == {"gpus"}
    assert "✗ gpus: GPU 1 (NVIDIA H100 80GB HBM3) is full, 79.0 GiB" in run.output
    assert "GPU 0" not in run.output
    assert rig.running()["comfyui-gpu0"].pid == pid


def test_by_uuid_an_instance_keeps_its_gpu_in_whatever_order_they_are(
    with_gpus: Callable[..., Rig], nvml: Nvml
) -> None:
    rig = with_gpus(card(1), card(2), pin="uuid")
    planned = rig.doit("plan").output
    assert f"    comfyui-gpu1 on {uuid(2)}" in planned
    assert not rig.layout.gpus.exists()
    rig.doit()
    assert [device(rig, number) for number in (0, 1)] == [uuid(1), uuid(2)]
    nvml.calls()
    assert rig.doit().executed == set()
    assert nvml.calls() == []
    rig.doit("down")
    nvml.show(card(2), card(1))
    rig.doit()
    assert [device(rig, number) for number in (0, 1)] == [uuid(1), uuid(2)]


def test_a_plan_foresees_what_a_run_refuses(with_gpus: Callable[..., Rig], nvml: Nvml) -> None:
    rig = with_gpus(card(1), pin="uuid")
    plan, run = rig.doit("plan", code=None), rig.doit(code=2)
    line = "✗ gpus: no GPU 1 here, there is 1: correct instances.gpus\n"
    assert line in run.output
    assert line in plan.output
    assert not rig.layout.gpus.exists()
