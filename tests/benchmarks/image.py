"""An image: what a changed custom node costs, what it weighs, how soon its container is healthy.

Needs Docker (or what takes the same commands), and a base image that has what this host needs to
reach the package index. Caches of its own make the first build cold; nobody else's are touched.

    python tests/benchmarks/image.py --base IMAGE [--machine FOLDER] [--engine docker] [--starts 5]

Without --machine it is the simulator. A custom node is added that changes between two builds.
Where there is no GPU, instances run on the CPU. Ends with 1 when a figure is not reached.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
import yaml

from tests.benchmarks.figures import at_most, conclude, exit_on_signals
from tests.forge import Forge, Repository
from tests.image.context import MACHINE, make_context
from tests.rig import SIMULATOR, Rig, free_ports
from tests.servers import git_server

LOOPBACK = "127.0.0.1"
GRACE = 10
"""Seconds that Docker gives a container to end."""
SHARED, MACHINES = Path("/workspace/shared"), Path("/workspace/.machine")
VOLUMES = (SHARED, MACHINES / "state")
PARTS = (MACHINES / "environments", MACHINES / "generations", SHARED / "models")
"""Folders with the packages, with ComfyUI and the custom nodes, and with models."""


@dataclass
class Image:
    """Docker, with an image and a container of this benchmark's own."""

    engine: str
    base: str
    site: Site
    name: str = field(default_factory=lambda: f"comfy-machine-{os.getpid()}")
    tags: list[str] = field(default_factory=list)

    def run(self, *words: object) -> str:
        """What a command of the engine prints."""
        argv = [self.engine, *map(str, words)]
        ended = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert ended.returncode == 0, ended.stdout
        return ended.stdout.strip()

    def build(self, tag: str, *options: str) -> float:
        """Seconds that it took."""
        arguments = {
            "BASE_IMAGE": self.base,
            "MACHINE_FILES": MACHINE,
            "UID": os.getuid(),
            "GID": os.getgid(),
            "BUILDKIT_CACHE_MOUNT_NS": self.name,
        }
        given = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        begin = time.perf_counter()
        self.run(
            "build", "--quiet", "--network=host", *given, *options,
            "--tag", f"{self.name}:{tag}", self.site.context,
        )  # fmt: skip
        self.tags.append(tag)
        return time.perf_counter() - begin

    def megabytes(self, image: str) -> float:
        return float(self.run("image", "inspect", "--format", "{{.Size}}", image)) / 1e6

    def start(self, url: str, *how: str) -> float:
        """Seconds from `docker run` until the address answers with 200."""
        begin = time.perf_counter()
        self.run(
            "run", "--detach", "--rm", "--name", self.name, "--network=host", "--read-only",
            "--tmpfs=/tmp", f"--env=COMFYUI_LISTEN={LOOPBACK}", f"--env=HEALTH_LISTEN={LOOPBACK}",
            *(f"--volume={self.site.volumes / at.name}:{at}" for at in VOLUMES), *how,
        )  # fmt: skip
        while not answers(url):
            assert time.perf_counter() - begin < 300, self.run("logs", self.name)
            time.sleep(0.02)
        return time.perf_counter() - begin

    def stop(self) -> float:
        begin = time.perf_counter()
        self.run("stop", "--time", GRACE, self.name)
        took = time.perf_counter() - begin
        subprocess.run([self.engine, "wait", self.name], capture_output=True)
        return took

    def close(self) -> None:
        subprocess.run([self.engine, "rm", "--force", self.name], capture_output=True)
        for tag in self.tags:
            self.run("image", "rm", "--force", f"{self.name}:{tag}")


@dataclass
class Site:
    """A machine with a custom node that changes, the context of its image, and volumes."""

    rig: Rig
    context: Path
    node: Repository
    volumes: Path

    def lock(self, *words: str) -> None:
        self.rig.doit(*words)
        left_out = shutil.ignore_patterns("workspace")
        shutil.copytree(
            self.rig.folder, self.context / MACHINE, ignore=left_out, dirs_exist_ok=True
        )


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.ConnectionError:
        return False


def make_site(folder: Path, machine: Path | None, node: Repository, url: str) -> Site:
    place = folder / "machine"
    if machine is None:
        shutil.copytree(SIMULATOR, place / "comfyui")
        spec: dict[str, Any] = {"comfyui": {"path": "comfyui"}, "python": {"torch": "none"}}
    else:
        shutil.copytree(machine, place, ignore=shutil.ignore_patterns("workspace", "*.lock"))
        spec = yaml.safe_load((place / "machine.yaml").read_text())
    port = free_ports(2)
    own = {
        "workspace": "workspace",
        "custom_nodes": [*(spec.get("custom_nodes") or []), {"url": url}],
        "instances": {
            **(spec.get("instances") or {}),
            "gpus": 1,
            "cpu_only": not Path("/dev/nvidiactl").exists(),
            "port_start": port,
        },
        # A warm-up job is no part of an instance's own start, with which it is compared.
        "health": {"port": port + 1},
        "workers": [],
    }
    volumes = folder / "volumes"
    for at in VOLUMES:
        (volumes / at.name).mkdir(parents=True)
    return Site(Rig(place, spec | own), make_context(folder / "context"), node, volumes)


def changes(image: Image) -> None:
    image.site.lock("lock")
    cold = image.build("cold", "--no-cache")
    print(f"  built cold in {cold:.1f} s", flush=True)
    image.site.node.commit({"more.py": "x = 1\n"})
    image.site.lock("update", "changing")
    changed = image.build("latest")
    at_most("a changed node, of the cold build", changed / cold, 0.1, more=f": {changed:.1f} s")


def weight(image: Image) -> None:
    image.build("base", "--target=base")
    latest = f"{image.name}:latest"
    du = image.run("run", "--rm", "--entrypoint=du", latest, "--summarize", "--bytes", *PARTS)
    parts = sum(int(line.split()[0]) for line in du.splitlines()) / 1e6
    debian = image.megabytes(f"{image.name}:base")
    ours = image.megabytes(latest) - debian - parts
    more = f"; Debian's packages that this base lacks: {debian - image.megabytes(image.base):.0f}"
    at_most("beyond base, packages, ComfyUI and nodes", ours, 250, "MB", more)


def starts(image: Image, rounds: int) -> None:
    instance, health = image.site.rig.spec["instances"], image.site.rig.spec["health"]
    ready = f"http://{LOOPBACK}:{health['port']}/readyz"
    own_answer = f"http://{LOOPBACK}:{instance['port_start']}/system_stats"
    latest = f"{image.name}:latest"
    first = image.start(ready, latest)
    listed = image.run("top", image.name, "-o", "pid,args").splitlines()
    (python, *arguments), *_ = (line.split()[1:] for line in listed if "/main.py " in line)
    stops = [image.stop()]
    alone, whole = [], []
    for _ in range(rounds):
        alone.append(
            image.start(
                own_answer, "--workdir=/workspace/ComfyUI", f"--entrypoint={python}",
                "--stop-signal=SIGKILL", latest, *arguments,
            )
        )  # fmt: skip
        image.stop()
        whole.append(image.start(ready, latest))
        stops.append(image.stop())
    print(f"  the first start, on empty volumes: {first:.1f} s")
    more = f": {statistics.median(whole):.1f} s, and {statistics.median(alone):.1f} s alone"
    over = statistics.median(b - a for a, b in zip(alone, whole, strict=True))
    at_most("a container healthy, over the instance's own start", over, 3, "s", more)
    at_most("stopped, the slowest", max(stops), GRACE, "s")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--base", required=True)
    parser.add_argument("--machine", type=Path)
    parser.add_argument("--engine", default="docker")
    parser.add_argument("--starts", type=int, default=5)
    wanted = parser.parse_args()
    exit_on_signals()
    with tempfile.TemporaryDirectory(prefix="image-") as text:
        folder = Path(text)
        forge = Forge(folder / "forge")
        node = forge.node("changing")
        with git_server(forge.folder, "") as (url, _):
            site = make_site(folder, wanted.machine, node, f"{url}/changing")
            image = Image(wanted.engine, wanted.base, site)
            with closing(site.rig), closing(image):
                changes(image)
                weight(image)
                starts(image, wanted.starts)
    return conclude()


if __name__ == "__main__":
    sys.exit(main())
