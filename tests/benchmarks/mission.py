"""What the project owes its users, measured: installs, starts, health answers, workers, and a soak.

Each of the workspaces is new: an empty folder with a machine file, installed by `doit` without a
hand. The first one has empty caches (repositories, packages); the others share its. A worker of
each instance connects as soon as it is started, and writes down whether that went well at the
first try; each machine is taken down and up again a few times to have more of these.

    python tests/benchmarks/mission.py --machine FILE [--workspaces 20] [--restarts 3] [--soak 30]

With --cached the caches are the caller's, and the first install is as any other.

Without --machine it is the simulator, with five custom nodes. A floor that is asked for is beaten
by half when the mark is ✓. 24 hours are not waited for: what a soak of so many minutes grew by is
told for 24 hours at the same slope, and that is what it is. Ends with 1 when a figure is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml

from comfy_machine.host.comfyui.api import Client
from comfy_machine.host.comfyui.own_jobs import smoke
from comfy_machine.host.pm2 import apps, pm2
from comfy_machine.host.system import files, private_folder, usage
from comfy_machine.spec.layout import Layout
from tests.benchmarks.figures import at_least, at_most, conclude, exit_on_signals, run
from tests.conftest import uv_cache
from tests.forge import Forge
from tests.rig import DOIT, PROJECT, SIMULATOR, free_ports

INSTANCES = 2
ANSWERS = 200
"""Health answers that are timed in each workspace."""
DAY = 24 * 60
WORKER = """
import json, os, sys, time, urllib.request
try:
    with urllib.request.urlopen(os.environ["COMFYUI_URL"] + "/object_info", timeout=10) as told:
        well = bool(json.load(told))
except OSError:
    well = False
with open(os.environ["CONNECTED"], "a") as file:
    file.write("1" if well else "0")
time.sleep(1 << 30)
"""


@dataclass
class Workspace:
    """One fresh machine."""

    folder: Path
    env: dict[str, str]
    took: float = 0.0
    """Seconds of the whole install."""
    said: str = ""
    starts: list[float] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)

    @property
    def layout(self) -> Layout:
        return Layout(self.folder / "ws")

    def doit(self, *words: str) -> bool:
        command: list[str | Path] = [DOIT, *words, f"machine={self.folder / 'machine.yaml'}"]
        code, _, self.said = run(command, PROJECT, self.env)
        return code == 0

    def write(self, spec: dict[str, Any]) -> None:
        """The machine file, with ports and workers of its own."""
        first = free_ports(INSTANCES + 1)
        cpu_only = not Path("/dev/nvidiactl").exists()
        instances = {"gpus": INSTANCES, "cpu_only": cpu_only, "port_start": first}
        worker = {
            "name": "worker",
            "command": [sys.executable, "-c", WORKER],
            "env": {"CONNECTED": str(self.folder / "connected")},
        }
        own = {
            "workspace": "ws",
            "instances": {**spec.get("instances", {}), **instances},
            "health": {**spec.get("health", {}), "port": first + INSTANCES},
            "workers": [worker],
        }
        (self.folder / "machine.yaml").write_text(yaml.safe_dump(spec | own, sort_keys=False))
        self.url = f"http://127.0.0.1:{first + INSTANCES}"
        self.ports = range(first, first + INSTANCES)

    def install(self) -> bool:
        begin = time.perf_counter()
        well = self.doit()
        self.took = time.perf_counter() - begin
        if well:
            self.note_starts()
        return well

    def note_starts(self) -> None:
        """Seconds from each process's start until it had passed the gate."""
        for app in apps.running(self.layout.workspace, None):
            if app.port:
                gpu = int(app.name.rpartition("gpu")[2])
                passed = self.layout.healthy(gpu).stat().st_mtime
                self.starts.append(passed - app.started)

    def ask(self) -> None:
        session = requests.Session()
        for _ in range(ANSWERS):
            begin = time.perf_counter()
            session.get(f"{self.url}/health/comfyui", timeout=10)
            self.answers.append(time.perf_counter() - begin)

    @property
    def connected(self) -> str:
        """A 1 for each worker that connected at the first try, a 0 for each that did not."""
        file = self.folder / "connected"
        return file.read_text() if file.exists() else ""

    def end(self) -> None:
        self.doit("down")
        shutil.rmtree(private_folder.folder(self.layout.workspace), ignore_errors=True)


def simulated(folder: Path) -> dict[str, Any]:
    """A machine file of the simulator, with five nodes."""
    source = (
        "class N:\n    INPUT_TYPES = classmethod(lambda cls: {'required': {}})\n"
        "    RETURN_TYPES = ()\n    FUNCTION = 'run'\n"
    )
    forge = Forge(folder / "forge")
    nodes = [
        forge.repository(f"node{number}", {
            "__init__.py": f"{source}NODE_CLASS_MAPPINGS = {{'N{number}': N}}\n",
        })
        for number in range(5)
    ]  # fmt: skip
    return {
        "comfyui": {"path": str(SIMULATOR)},
        "python": {"torch": "none"},
        "custom_nodes": [{"url": node.url} for node in nodes],
    }


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Growth for each minute, by least squares over (minutes, value)."""
    if len(points) < 2:
        return 0.0
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def soak(workspace: Workspace, minutes: float) -> None:
    """Jobs through every instance, and health asked, for so long; the first fifth isn't counted."""
    layout, begin = workspace.layout, time.monotonic()
    memory: dict[str, list[tuple[float, float]]] = {}
    opened: dict[str, list[tuple[float, float]]] = {}
    disk: list[tuple[float, float]] = []
    asked, failed = 0, []
    while (now := (time.monotonic() - begin) / 60) < minutes:
        tries = [partial(job, port) for port in workspace.ports]
        for each in [*tries, partial(healthy, workspace.url)]:
            asked += 1
            if why := each():
                failed.append(why)
                print(f"  minute {now:.1f}: {why}", flush=True)
        if now >= minutes / 5:
            found = {app.name: app.pid for app in apps.running(layout.workspace, None)}
            for name, pid in found.items() | {("pm2", pm2.daemon(layout) or 0)}:
                memory.setdefault(name, []).append((now, (usage.own_memory(pid) or 0) / 1e6))
                opened.setdefault(name, []).append((now, psutil.Process(pid).num_fds()))
            disk.append((now, sum(path.lstat().st_size for path in layout.logs.iterdir()) / 1e6))
        time.sleep(1)
    print(f"  {minutes:g} minutes; at the same slope 24 hours would grow by:")
    for name in sorted(memory):
        print(
            f"    {name}: {DAY * slope(memory[name]):.3g} MB of memory, "
            f"{DAY * slope(opened[name]):.3g} open files"
        )
    print(f"    logs: {DAY * slope(disk):.3g} MB (they are rotated)")
    at_most(f"failed of {asked} jobs and health answers in {minutes:g} minutes", len(failed), 0)
    alive = apps.running(layout.workspace, None)
    expected = 2 * INSTANCES + len(apps.OURS) - len(apps.JOBS)
    at_least("apps that run at its end", len(alive), expected, f"of {expected}")


def job(port: int) -> str | None:
    """Why a job didn't come through."""
    client = Client("127.0.0.1", port)
    try:
        client.wait(client.submit(smoke("PreviewImage")), 60)
    except Exception as error:
        return f"port {port}: {error!r}"
    return None


def healthy(url: str) -> str | None:
    """What the health server says, unless all is well."""
    answer = requests.get(f"{url}/health/comfyui", timeout=10)
    return None if answer.status_code == 200 else answer.text


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def report(done: Sequence[Workspace], installed: Sequence[Workspace]) -> None:
    succeeded = 100 * len(installed) / len(done)
    at_least("installs that succeeded without a hand", succeeded, 97.5, "%")
    if not installed:
        return
    at_most("the whole install, with empty caches", done[0].took, 150, "s")
    if warm := [each.took for each in installed if each is not done[0]]:
        at_most("the whole install, with caches, the slowest", max(warm), 150, "s")
        print(f"  median {statistics.median(warm):.3g} s")
    starts = [start for each in installed for start in each.starts]
    at_most("from an instance's start until it is healthy, the slowest", max(starts), 15, "s")
    answers = [1000 * answer for each in installed for answer in each.answers]
    at_most(f"a health answer, the slowest of {len(answers)}", max(answers), 500, "ms")
    print(f"  median {statistics.median(answers):.3g} ms, p99 {percentile(answers, 99):.3g} ms")
    tries = "".join(each.connected for each in installed)
    share = 100 * tries.count("1") / max(1, len(tries))
    at_least(f"workers connected at the first try, of {len(tries)}", share, 99.5, "%")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--machine", type=Path)
    parser.add_argument("--workspaces", type=int, default=20)
    parser.add_argument("--restarts", type=int, default=3)
    parser.add_argument("--soak", type=float, default=0, help="minutes")
    parser.add_argument("--cached", action="store_true")
    wanted = parser.parse_args()
    exit_on_signals()
    done: list[Workspace] = []
    with tempfile.TemporaryDirectory(prefix="mission-") as text:
        folder = Path(text).resolve()
        own = {} if wanted.cached else {"UV_CACHE_DIR": "uv", "npm_config_cache": "npm"}
        caches = {name: str(folder / at) for name, at in {"XDG_CACHE_HOME": "cache", **own}.items()}
        caches.setdefault("UV_CACHE_DIR", uv_cache())
        given = wanted.machine and yaml.safe_load(wanted.machine.read_text())
        spec = given or simulated(folder)
        for number in range(wanted.workspaces):
            place = folder / f"workspace{number}"
            place.mkdir()
            workspace = Workspace(place, {**os.environ, **caches})
            workspace.write(spec)
            done.append(workspace)
            try:
                well = workspace.install()
                print(f"  {number + 1}: {'installed' if well else 'failed'} in "
                      f"{workspace.took:.1f} s", flush=True)  # fmt: skip
                if not well:
                    print("\n".join(line for line in workspace.said.splitlines() if "✗" in line))
                    continue
                workspace.ask()
                for _ in range(wanted.restarts):
                    if workspace.doit("down") and workspace.doit():
                        workspace.note_starts()
                if number == wanted.workspaces - 1 and wanted.soak:
                    soak(workspace, wanted.soak)
            finally:
                workspace.end()
                files.remove(workspace.layout.workspace)
        report(done, [each for each in done if each.starts])
    return conclude()


if __name__ == "__main__":
    sys.exit(main())
