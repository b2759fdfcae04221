"""Installations of ComfyUI that are adopted, and whether the machines make the same pictures.

    python -m tests.benchmarks.adoption FOLDER [FOLDER ...]

Each FOLDER is an installation with its Python. It is adopted in a temporary folder, the machine is
built and started, and a workflow that needs no model runs on both: on the installation's own Python
and main.py, with its outputs, temporary files and settings elsewhere, and on the machine. The table
says for each what became of its packages and pixels, and whether anything in FOLDER changed. Git
and the package tools are asked as the caller's environment has them. Ends with 1 when a figure is
missed.
"""

from __future__ import annotations

import argparse
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from comfy_machine.adoption import findings
from comfy_machine.adoption.findings import Findings
from comfy_machine.commands.shared.new_machine_file import COMFYUI
from comfy_machine.host.comfyui.api import Client, probe
from comfy_machine.spec.lock_format import read_lock
from tests import starter
from tests.benchmarks.figures import at_least, conclude, exit_on_signals, miss, run
from tests.benchmarks.wild import BIN, Bench, temporary_folder

LONGEST = 300.0
"""Seconds until an installation answers, and for a job."""
KEPT = 0.99
WORKFLOW: dict[str, Any] = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 96, "height": 64, "batch_size": 1, "color": 0x3A7BD5},
    },
    "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "same"}},
}
Pixels = tuple[tuple[int, int], bytes]


@dataclass
class Row:
    """What became of one installation."""

    folder: Path
    comfyui: str = ""
    nodes: int = 0
    models: int = 0
    kept: int = 0
    """Packages of the machine with the version that the installation has."""
    packages: int = 0
    """Packages that both have."""
    seconds: float = 0.0
    """Of adopt."""
    built: float = 0.0
    same: bool = False
    """Whether the pixels are equal."""
    untouched: bool = False

    def __str__(self) -> str:
        return (
            f"{self.folder.name:<16} {self.comfyui:<13} {self.nodes:>5} {self.models:>6} "
            f"{f'{self.kept}/{self.packages}':>9} {self.seconds:>7.1f} {self.built:>7.1f} "
            f"{'same' if self.same else 'DIFFER':>7} {'untouched' if self.untouched else 'CHANGED'}"
        )


HEAD = (
    f"{'installation':<16} {'ComfyUI':<13} {'nodes':>5} {'models':>6} {'versions':>9} "
    f"{'adopt s':>7} {'up s':>7} {'pixels':>7} its files"
)


def snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """Inode, mode, size and time of everything in a folder, links not followed."""
    found: dict[str, tuple[int, ...]] = {}
    for at, folders, names in os.walk(folder):
        for path in (Path(at, name) for name in [*folders, *names]):
            status = path.lstat()
            # Without ctime: uv's cache may share files with its environment by hard links.
            found[str(path)] = (status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns)
    return found


def code_and_models(folder: Path) -> dict[str, tuple[int, ...]]:
    """Its files without bytecode, which Python writes beside the nodes that are linked."""
    found = snapshot(folder)
    return {
        name: status for name, status in found.items()
        if stat.S_ISREG(status[1]) and "__pycache__" not in name
    }  # fmt: skip


def measure(folder: Path) -> Row:
    row = Row(folder)
    found = findings.read(folder, None, Path.home(), COMFYUI.url)
    with temporary_folder() as place:
        bench = Bench(place)
        try:
            theirs = old_pixels(found, place)
        except (ValueError, OSError) as error:
            print(f"{folder}: {error}")
            miss(f"{folder} itself works")
            return row
        before, files_before = snapshot(folder), code_and_models(folder)
        code, row.seconds, output = run(
            [BIN / "comfy-machine", "adopt", folder, "-m", bench.file], place, timeout=LONGEST
        )
        if code:
            print(output)
            miss(f"{folder} was adopted")
            return row
        row.untouched = snapshot(folder) == before
        preferred = {
            n: p.version for n, p in read_lock(place / "machine.lock", "").preferred.items()
        }
        spec = on_free_ports(bench)
        row.comfyui = str(spec["comfyui"].get("ref", "copied"))[:13]
        row.nodes, row.models = len(spec["custom_nodes"]), len(spec["models"]["files"])
        code, row.built, output = bench.doit("up")
        if code:
            print(output)
            miss(f"the machine of {folder} became healthy")
            return row
        row.kept, row.packages = kept(place, preferred)
        row.same = new_pixels(bench, spec) == theirs
        row.untouched = row.untouched and code_and_models(folder) == files_before
    return row


def on_free_ports(bench: Bench) -> dict[str, Any]:
    """The machine file, changed to use free ports and no GPU."""
    spec: dict[str, Any] = yaml.safe_load(bench.file.read_text())
    spec["instances"] |= {"gpus": 1, "cpu_only": True, "listen": "127.0.0.1"}
    spec["instances"]["port_start"], spec["health"]["port"] = free_port(), free_port()
    bench.write(spec)
    return spec


def kept(place: Path, preferred: Mapping[str, str | None]) -> tuple[int, int]:
    """Packages of the lock with the preferred version, and those that are in both."""
    python = read_lock(place / "machine.lock", "").python
    now = {name: each.version for name, each in python.packages.items()} if python else {}
    both = preferred.keys() & now.keys()
    for name in sorted(name for name in both if preferred[name] != now[name]):
        print(f"  {name} {preferred[name]} → {now[name]}")
    return sum(preferred[name] == now[name] for name in both), len(both)


def old_pixels(found: Findings, place: Path) -> Pixels:
    """What the installation itself makes."""
    if found.environment is None:
        raise ValueError("it has no Python")
    out = place / "theirs"
    with serving(found, out) as port:
        Client("127.0.0.1", port).wait(Client("127.0.0.1", port).submit(WORKFLOW), LONGEST)
    return pixels(out / "output")


def new_pixels(bench: Bench, spec: dict[str, Any]) -> Pixels:
    client = Client("127.0.0.1", spec["instances"]["port_start"])
    client.wait(client.submit(WORKFLOW), LONGEST)
    return pixels(bench.layout.outputs(0))


def pixels(folder: Path) -> Pixels:
    (file,) = folder.glob("same_*.png")
    with Image.open(file) as image:
        return image.size, image.convert("RGB").tobytes()


@contextmanager
def serving(found: Findings, out: Path) -> Iterator[int]:
    """The installation, started by its own Python; it writes elsewhere."""
    assert found.environment
    port = free_port()
    words = [found.environment.folder / "bin" / "python", "main.py", "--cpu", "--port", port]
    for kind in ("output", "temp", "user", "input"):
        (out / kind).mkdir(parents=True)
        words += [f"--{kind}-directory", out / kind]
    words += ["--database-url", f"sqlite:///{out / 'old.db'}"]
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    with (out / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(word) for word in words], cwd=found.comfyui.folder, env=env, stdout=log,
            stderr=log, text=True, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + LONGEST
        while not probe("127.0.0.1", port).healthy:
            if process.poll() is not None or time.monotonic() > deadline:
                raise ValueError(f"{found.comfyui.folder}: {(out / 'log').read_text()[-2000:]}")
            time.sleep(0.2)
        yield port
    finally:
        starter.end(process)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    exit_on_signals()
    rows = []
    for folder in arguments.folders:
        rows.append(measure(folder.absolute()))
        print(rows[-1], flush=True)
    print("\n".join(["", HEAD, *map(str, rows)]))
    at_least("installations with the same pixels", sum(row.same for row in rows), len(rows))
    at_least("installations in which nothing changed", sum(r.untouched for r in rows), len(rows))
    kept_by_all, in_both = sum(row.kept for row in rows), sum(row.packages for row in rows)
    # A lock is for every patch release of its Python, an installation only for its own.
    at_least("share of packages with the version of before", kept_by_all / max(in_both, 1), KEPT)
    return conclude()


if __name__ == "__main__":
    sys.exit(main())
