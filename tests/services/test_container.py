"""The first process of a container, outside of one; in one it is seen by make test-image."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from comfy_machine.host.generations import image_volumes
from comfy_machine.host.pm2 import pm2
from comfy_machine.host.pm2.log_stream import LogStream
from comfy_machine.host.system import private_folder
from comfy_machine.host.system.files import write_receipt
from comfy_machine.spec.layout import Layout
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.rig import PROJECT, Rig


@contextmanager
def first_process(rig: Rig, *arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    rig.write()
    command = [sys.executable, "-I", "-m", "comfy_machine.services.container", *arguments]
    process = subprocess.Popen(
        command, cwd=PROJECT, env=rig.environ({"MACHINE": str(rig.file), **env}),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def is_up(rig: Rig, first: int) -> bool:
    """Whether all runs, and nothing but PM2 is left to the first process."""
    children = [child.pid for child in psutil.Process(first).children()]
    return (
        bool(children) and children == [pm2.daemon(rig.layout)] and "worker-gpu0" in rig.running()
    )


def test_a_container_keeps_the_machine_up_and_ends_all_of_it(machine: MachineMaker) -> None:
    worker = {"name": "worker", "command": ["sleep", "1000"], "env": {"T": "${T}"}}
    rig = machine(workers=[worker])
    with first_process(rig, "--once") as process:
        said, _ = process.communicate(timeout=60)
        assert process.returncode == 2
        assert "the variable T isn't set" in said
        assert pm2.daemon(rig.layout) is None
    with first_process(rig, T="1") as process:
        until(lambda: is_up(rig, process.pid), 60, "the machine")
        rig.kill_daemon()
        until(lambda: is_up(rig, process.pid), 60, "the machine again")
        rig.doit("down")
        rig.doit("up", T="1")
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "comfyui-gpu0 | Stopped server" in said
        assert said.index("PM2 has ") < said.index("doit down has stopped the machine")
    assert rig.running() == {}
    assert not private_folder.folder(rig.workspace).exists()


def test_a_container_that_makes_no_sense_ends_at_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {"workspace": "ws"})
    with first_process(rig) as process:
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 3
        assert "comfyui" in said


@pytest.mark.parametrize("grace", ["30s", "-1", "nan"])
def test_a_time_to_stop_is_a_number_of_seconds(tmp_path: Path, grace: str) -> None:
    rig = Rig(tmp_path, {"workspace": "ws"})
    with first_process(rig, STOP_GRACE_PERIOD=grace) as process:
        said, _ = process.communicate(timeout=30)
        assert (process.returncode, said) == (
            3,
            "STOP_GRACE_PERIOD: write a number of seconds\n",
        )


def test_two_containers_do_not_share_a_volume(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {"workspace": "ws", "comfyui": {}})
    assert image_volumes.claim(rig.layout)
    with first_process(rig) as process:
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 1
        assert said == (
            f"another container has {rig.layout.state}: give each a volume of its own\n"
        )


def test_a_container_can_become_another_command(tmp_path: Path) -> None:
    rig = Rig(tmp_path, {"workspace": "ws"})
    with first_process(rig, "echo", "--once", "more") as process:
        assert process.communicate(timeout=30)[0] == "--once more\n"
    with first_process(rig, "eccho", "more") as process:
        assert process.communicate(timeout=30)[0] == "eccho: No such file or directory\n"
        assert process.returncode == 127


def test_logs_are_shown_line_by_line_and_across_a_rotation(tmp_path: Path) -> None:
    logs, shown = Layout(tmp_path).logs, tmp_path / "shown"
    logs.mkdir(parents=True)
    log = logs / "comfyui-gpu0.log"
    log.write_text("before\n")
    (logs / "validation.log").write_text("of a task\n")
    with shown.open("wb") as sink:
        stream = LogStream(Layout(tmp_path), sink.fileno())
        stream.start()
        with log.open("a") as writer:
            writer.write("one\nhal")
            writer.flush()
            until(lambda: shown.read_text() == "comfyui-gpu0 | one\n", 60, "the line")
            writer.write("f\nlast")
        log.rename(logs / "comfyui-gpu0.log.1")
        log.write_text(" of the old\nnew\n")
        (logs / "health-server.log").write_text("up\n")
        until(lambda: {"up", "new"} <= set(shown.read_text().split()), 60, "both logs")
        stream.stop()
    assert [line for line in shown.read_text().splitlines() if "gpu0" in line] == [
        "comfyui-gpu0 | one",
        "comfyui-gpu0 | half",
        "comfyui-gpu0 | last of the old",
        "comfyui-gpu0 | new",
    ]
    assert "health-server | up\n" in shown.read_text()


def test_receipts_come_from_the_image_once_for_each_image(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    brought = layout.machine / image_volumes.RECEIPTS
    write_receipt(brought / "nodes" / "a.json", {"commit": "1"})
    write_receipt(brought / "models.json", {"models": {"of": "the image"}})
    for name in ("receipts", "logs"):
        (layout.machine / name).symlink_to(f"state/{name}")
    image_volumes.settle(layout)
    assert layout.logs.is_dir()
    kept = layout.receipts / "nodes" / "a.json"
    assert kept.read_text() == (brought / "nodes" / "a.json").read_text()
    kept.write_text("as a later run left it")
    (layout.receipts / "models.json").write_text("what is on the volume")
    image_volumes.settle(layout)
    assert kept.read_text() == "as a later run left it"
    write_receipt(brought / "nodes" / "a.json", {"commit": "2"})
    image_volumes.settle(layout)
    assert kept.read_text() == (brought / "nodes" / "a.json").read_text()
    assert (layout.receipts / "models.json").read_text() == "what is on the volume"


def test_outside_of_an_image_nothing_is_settled(tmp_path: Path) -> None:
    image_volumes.settle(Layout(tmp_path / "none"))
    Layout(tmp_path).receipts.mkdir(parents=True)
    image_volumes.settle(Layout(tmp_path))
    assert not Layout(tmp_path).state.exists()
