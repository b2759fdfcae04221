"""Instances: how soon ready is noticed, eight at once, status, and a run with nothing to do.

All on simulated instances under the real PM2, in one run. A custom node burns as much of a core
while it is imported as `--imports` says, as torch does in real ComfyUI (4 s and more); the limit
for eight of them is what they need when they are simply started at once, without us.

    python tests/benchmarks/instances.py [--rounds 5] [--imports 1.5] [--gpus 8]

`--built` names a workspace whose PM2 and environment serve, so that neither is installed.

It ends with 1 when a figure is not reached.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path

from comfy_machine.spec.layout import Layout
from tests.benchmarks.figures import at_most, conclude, exit_on_signals, timed
from tests.conftest import copy_environments, link_supervisor, uv_cache
from tests.forge import Forge
from tests.rig import SIMULATOR, Rig, free_ports

BURN = """
import os, time
while "COMFYUI_PORT" in os.environ and time.process_time() < {seconds}:
    sum(range(1000))
NODE_CLASS_MAPPINGS = {{}}
"""
#: Writes down every program that a Python process starts.
AUDIT = """
import os, sys
def hook(event, arguments):
    if event == "subprocess.Popen":
        with open(os.environ["AUDIT"], "a") as file:
            file.write(" ".join(map(str, arguments[1])) + "\\n")
if "AUDIT" in os.environ:
    sys.addaudithook(hook)
"""


def machine(folder: Path, name: str, gpus: int, imports: float, built: Path | None) -> Rig:
    place = folder / name
    place.mkdir()
    node = Forge(place / "forge").repository("burn", {"__init__.py": BURN.format(seconds=imports)})
    first = free_ports(gpus + 1)
    rig = Rig(
        place,
        {
            "workspace": "ws",
            "comfyui": {"path": str(SIMULATOR)},
            "python": {"torch": "none"},
            "custom_nodes": [{"url": node.url}],
            "instances": {"gpus": gpus, "cpu_only": True, "port_start": first},
            "health": {"port": first + gpus},
        },
        env={"XDG_CACHE_HOME": str(folder / "cache"), "UV_CACHE_DIR": uv_cache()},
    )
    if built:
        link_supervisor(Layout(built).supervisor, rig.layout)
        copy_environments(Layout(built).environments, rig.layout.environments)
    return rig


def first_answers(rig: Rig, gpus: int, stop: threading.Event) -> dict[int, float]:
    """When each instance first answered (seconds since the epoch)."""
    seen: dict[int, float] = {}
    while len(seen) < gpus and not stop.is_set():
        for gpu in set(range(gpus)) - set(seen):
            if rig.healthy(gpu):
                seen[gpu] = time.time()
        time.sleep(0.002)
    return seen


def noticed(rig: Rig) -> float:
    """Seconds from an instance's first answer until it has passed the gate."""
    rig.doit("down")
    stop = threading.Event()
    found: list[dict[int, float]] = []
    thread = threading.Thread(target=lambda: found.append(first_answers(rig, 1, stop)))
    thread.start()
    try:
        rig.doit()
    finally:
        stop.set()
        thread.join()
    passed = (rig.layout.instance(0) / "healthy.json").stat().st_mtime
    return passed - found[0][0]


def alone(rig: Rig, gpus: int) -> float:
    """Seconds until all instances answer that are just started, all at once, without us."""
    commands = []
    for gpu in range(gpus):
        (app,) = [app for app in rig.config(gpu) if app["name"] == f"comfyui-gpu{gpu}"]
        commands.append(([app["script"], *app["args"]], app["cwd"], {**os.environ, **app["env"]}))
    rig.doit("down")
    begin = time.perf_counter()
    started = [
        subprocess.Popen(
            args, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for args, cwd, env in commands
    ]
    try:
        left = set(range(gpus))
        while left:
            left -= {gpu for gpu in left if rig.healthy(gpu)}
            time.sleep(0.02)
        return time.perf_counter() - begin
    finally:
        for process in started:
            process.send_signal(signal.SIGINT)
        for process in started:
            process.wait(30)


def together(rig: Rig, gpus: int) -> tuple[float, float]:
    """Seconds from the start of all until the last has passed the gate; of the whole run."""
    rig.doit("down")
    began = time.time()
    rig.doit()
    ended = time.time() - began
    begin = rig.layout.log("instances:start").stat().st_mtime
    passed = [(rig.layout.instance(g) / "healthy.json").stat().st_mtime for g in range(gpus)]
    return max(passed) - begin, ended


def pm2_calls(rig: Rig, folder: Path) -> int:
    """How often a run with nothing to do asks PM2."""
    (folder / "sitecustomize.py").write_text(AUDIT)
    file = folder / "audit"
    file.touch()
    rig.doit(PYTHONPATH=str(folder), AUDIT=str(file))
    rig.doit("build", PYTHONPATH=str(folder), AUDIT=str(file))
    return sum("pm2" in line for line in file.read_text().splitlines())


def measure(one: Rig, several: Rig, wanted: argparse.Namespace) -> None:
    gpus, rounds, often = wanted.gpus, wanted.rounds, wanted.rounds * wanted.often
    one.doit()
    several.doit()
    seconds = [noticed(one) for _ in range(2 * rounds)]
    at_most("ready noticed after the first answer, the slowest", max(seconds), 0.25, "s")

    ratios, wholes = [], []
    for _ in range(rounds):
        limit = alone(several, gpus)
        ours, whole = together(several, gpus)
        ratios.append(ours / limit)
        wholes.append(whole / limit)
    at_most(f"{gpus} together, of their limit ({limit:.1f} s)", statistics.median(ratios), 1.3)
    print(f"  all of `doit`, of that limit: {statistics.median(wholes):.2f}")

    several.doit("status")
    status = [timed(lambda: several.doit("status")) for _ in range(often)]
    at_most(f"doit status, {gpus} instances", statistics.median(status), 0.4, "s")

    extra = []
    for _ in range(often):
        build = timed(lambda: several.doit("build"))
        extra.append(timed(several.doit) - build)
    at_most(f"no-op over the build's, {gpus} instances", statistics.median(extra), 0.3, "s")
    at_most("PM2 asked in a no-op", pm2_calls(several, several.folder), 1, "times")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--often", type=int, default=4, help="quick things in each round [4]")
    parser.add_argument("--imports", type=float, default=1.5, help="seconds of a core [1.5]")
    parser.add_argument("--gpus", type=int, default=8, help="instances at once [8]")
    parser.add_argument("--built", type=Path, metavar="WORKSPACE")
    wanted = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    exit_on_signals()
    with ExitStack() as stack:
        name = tempfile.TemporaryDirectory(prefix="comfy-machine-benchmark-")
        folder = Path(stack.enter_context(name)).resolve()
        one = machine(folder, "one", 1, 0.0, wanted.built)
        several = machine(folder, "several", wanted.gpus, wanted.imports, wanted.built)
        for rig in (one, several):
            stack.enter_context(closing(rig))
        measure(one, several, wanted)
    return conclude()


if __name__ == "__main__":
    sys.exit(main())
