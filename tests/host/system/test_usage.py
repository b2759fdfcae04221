"""What real processes use, and the memory of machines that are laid out in tmp."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from comfy_machine.host.system import usage
from tests.contract.client import until

SIZE = 64 << 20


@contextmanager
def process(code: str, *arguments: str) -> Iterator[int]:
    """A process that ran the code and says so."""
    text = f"{code}\nprint('up', flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", text, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        yield child.pid
        child.communicate(b"\n")


EATS = f"eaten = b'x' * {SIZE}"
MAPS = """
import mmap, sys
file = open(sys.argv[1], 'rb')
mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE)
total = sum(mapped[place] for place in range(0, len(mapped), 4096))
"""
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, '-c', {EATS + "; print('up', flush=True); input()"!r}],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
"""


WAITS = """
import os, sys
opened = (os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)
print('up', flush=True)
os.posix_spawn('/bin/true', ['true'], {}, file_actions=[opened])
"""
"""Until somebody writes into that pipe, the kernel counts it as waiting for a disk: a child that
hasn't become its program yet has its memory."""


def waits(pid: int) -> bool:
    effort = usage.effort(pid)
    assert effort
    return effort.waits


def test_a_process_that_waits_for_a_disk_is_told_from_one_that_sleeps(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with process("pass") as pid:
        until(lambda: not waits(pid), 10, "it sleeps")
    command = [sys.executable, "-c", WAITS, str(tmp_path / "pipe")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        until(lambda: psutil.Process(child.pid).status() == "disk-sleep", 10, "it waits")
        assert waits(child.pid)
        (tmp_path / "pipe").write_text("")
    assert child.returncode == 0


def test_memory_is_what_a_process_and_its_children_have_for_themselves() -> None:
    with process("pass") as pid:
        plain = usage.own_memory(pid)
    assert plain is not None
    for code in (EATS, PARENT):
        with process(code) as pid:
            eaten = usage.own_memory(pid)
            assert eaten is not None
            # Two processes of one program differ by some pages.
            assert abs(eaten - plain - SIZE - (15 << 20)) < 16 << 20


def test_a_file_that_is_mapped_and_read_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"x" * SIZE)
    assert SIZE % mmap.PAGESIZE == 0
    with process(MAPS, str(file)) as pid:
        assert psutil.Process(pid).memory_info().rss > SIZE
        assert (usage.own_memory(pid) or 0) < SIZE / 2


def test_effort_counts_the_time_of_children_too() -> None:
    burn = "import time\nwhile time.process_time() < 0.5: pass"
    with process(burn) as pid:
        own = usage.effort(pid)
    with process(
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])"
    ) as pid:
        of_a_child = usage.effort(pid)
    assert own is not None
    assert of_a_child is not None
    assert own.cpu >= 0.4
    assert of_a_child.cpu >= 0.4


def test_a_process_that_is_gone_has_neither() -> None:
    with process("pass") as pid:
        pass
    assert usage.effort(pid) is None
    assert usage.own_memory(pid) is None


@pytest.mark.parametrize(
    ("cgroup", "limits", "expected"),
    [
        ("0::/job/one\n", {"job/one/memory.max": "max", "job/memory.max": "1048576"}, 1 << 20),
        ("0::/\n", {"memory.max": "2097152"}, 2 << 20),
        ("0::/outside/of/it\n", {"memory.max": "3145728"}, 3 << 20),
        ("4:cpu,memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "4194304"}, 4 << 20),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("0::/\n", {}, None),
    ],
)
def test_a_container_has_the_memory_that_its_cgroup_leaves_it(
    tmp_path: Path, cgroup: str, limits: dict[str, str], expected: int | None
) -> None:
    written = {f"sys/fs/cgroup/{name}": text for name, text in limits.items()}
    for name, text in (written | {"proc/self/cgroup": cgroup}).items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert usage.machine_memory(tmp_path) == (expected or psutil.virtual_memory().total)
