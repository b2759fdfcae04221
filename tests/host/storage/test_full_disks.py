"""Full disks that a machine writes to: found, named, and told by all that tell of the machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from comfy_machine.host.storage import full_disks
from comfy_machine.host.system import private_folder
from comfy_machine.spec.layout import Layout
from tests.conftest import MachineMaker
from tests.contract.client import until


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small volume there."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> None:
    with suppress(OSError), (folder / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_disk_is_full_when_it_has_no_space_or_no_inodes(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "ws")
    assert full_disks.full(layout) == []
    with ExitStack() as stack:
        machine = stack.enter_context(mounted(layout.machine, "size=4m"))
        assert full_disks.full(layout) == []
        fill(machine)
        told = f"no space is left on the disk of {machine}"
        assert full_disks.full(layout) == [told], "once, also for its state"
        shared = stack.enter_context(mounted(tmp_path / "ws" / "shared", "size=4m,nr_inodes=2"))
        (shared / "last").touch()
        outputs = shared / "outputs"
        assert full_disks.full(layout) == [told, f"no inodes are left on the disk of {outputs}"]


def test_a_machine_on_a_full_disk_serves_and_is_degraded_wherever_one_asks(
    machine: MachineMaker,
) -> None:
    rig = machine(health={"server": True})
    rig.doit()
    told = f"degraded: no space is left on the disk of {rig.layout.outputs(0).parent}"
    with mounted(rig.layout.outputs(0).parent, "size=4m") as outputs:
        fill(outputs)
        until(lambda: told in rig.doit("probe").output, 30, "the health server to see it")
        assert told.partition(": ")[2] in rig.doit("status").output
        (outputs / "fill").unlink()
        until(lambda: rig.doit("probe").output == "healthy\n", 30, "it to be healthy")


def test_a_run_that_can_not_record_its_progress_says_so(machine: MachineMaker) -> None:
    rig = machine()
    progress = rig.layout.progress("run").parent
    with mounted(progress, "size=4k"):
        fill(progress)
        run = rig.doit("directories")
    why = f"{rig.layout.progress('run')} can't be written: No space left on device"
    assert f"! doit status can't show this run: {why}\n" in run.output


def test_a_full_private_folder_is_named_and_once_there_is_space_all_goes_well(
    machine: MachineMaker,
) -> None:
    rig = machine()
    folder = private_folder.make(rig.workspace)
    with mounted(folder, "size=128k"):
        fill(folder)
        assert (
            f"{folder}/run.lock can't be written (No space left on device)"
            in rig.doit(code=2).output
        )
        (folder / "fill").write_bytes(bytes(90_000))
        assert f"PM2 can't start, 37 kB are left in {folder}: free space" in rig.doit(code=2).output
        (folder / "fill").unlink()
        rig.doit()
        rig.doit("down")
    assert rig.running() == {}
