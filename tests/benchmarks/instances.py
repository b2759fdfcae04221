"""Instances: how soon ready is noticed, eight at once, status, and a run with nothing to do.

All on simulated instances under the real PM2, in one run. A custom node burns as much of a core
while it is imported as `--imports` says, as torch does in real ComfyUI (4 s and more); the limit
for eight of them is what they need when they are simply started at once, without us.

    python tests/benchmarks/instances.py [--rounds 5] [--imports 1.5]

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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tasks.host.system import private_folder
from tests.benchmarks.figures import at_most, conclude
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
EIGHT = 8


def timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def machine(folder: Path, name: str, gpus: int, imports: float) -> Rig:
    """A machine that was up once, and is down."""
    place = folder / name
    place.mkdir()
    node = Forge(place / "forge").repository("burn", {"__init__.py": BURN.format(seconds=imports)})
    rig = Rig(
        place,
        {
            "workspace": "ws",
            "comfyui": {"path": str(SIMULATOR)},
            "python": {"torch": "none"},
            "custom_nodes": [{"url": node.url}],
            "instances": {"gpus": gpus, "cpu_only": True, "port_start": free_ports(EIGHT)},
        },
        env={"XDG_CACHE_HOME": str(folder / "cache")},
    )
    rig.doit()
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


def alone(rig: Rig) -> float:
    """Seconds until eight instances answer that are just started, all at once, without us."""
    commands = []
    for gpu in range(EIGHT):
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
        left = set(range(EIGHT))
        while left:
            left -= {gpu for gpu in left if rig.healthy(gpu)}
            time.sleep(0.02)
        return time.perf_counter() - begin
    finally:
        for process in started:
            process.send_signal(signal.SIGINT)
        for process in started:
            process.wait(30)


def together(rig: Rig) -> tuple[float, float]:
    """Seconds from the start of eight until the last has passed the gate; of the whole run."""
    rig.doit("down")
    began = time.time()
    rig.doit()
    ended = time.time() - began
    begin = rig.layout.log("instances:start").stat().st_mtime
    passed = [(rig.layout.instance(g) / "healthy.json").stat().st_mtime for g in range(EIGHT)]
    return max(passed) - begin, ended


def pm2_calls(rig: Rig, folder: Path) -> int:
    """How often a run with nothing to do asks PM2."""
    (folder / "sitecustomize.py").write_text(AUDIT)
    file = folder / "audit"
    file.touch()
    rig.doit(PYTHONPATH=str(folder), AUDIT=str(file))
    rig.doit("build", PYTHONPATH=str(folder), AUDIT=str(file))
    return sum("pm2" in line for line in file.read_text().splitlines())


def measure(folder: Path, rounds: int, imports: float) -> None:
    one = machine(folder, "one", 1, 0.0)
    eight = machine(folder, "eight", EIGHT, imports)
    try:
        seconds = [noticed(one) for _ in range(2 * rounds)]
        at_most("ready noticed after the first answer, the slowest", max(seconds), 0.25, "s")

        ratios, wholes = [], []
        for _ in range(rounds):
            limit = alone(eight)
            ours, whole = together(eight)
            ratios.append(ours / limit)
            wholes.append(whole / limit)
        at_most(f"{EIGHT} together, of their limit ({limit:.1f} s)", statistics.median(ratios), 1.3)
        print(f"  all of `doit`, of that limit: {statistics.median(wholes):.2f}")

        eight.doit("status")
        status = [timed(lambda: eight.doit("status")) for _ in range(4 * rounds)]
        at_most(f"doit status, {EIGHT} instances", statistics.median(status), 0.4, "s")

        extra = []
        for _ in range(4 * rounds):
            build = timed(lambda: eight.doit("build"))
            extra.append(timed(eight.doit) - build)
        at_most(f"no-op over the build's, {EIGHT} instances", statistics.median(extra), 0.3, "s")
        at_most("PM2 asked in a no-op", pm2_calls(eight, folder), 1, "times")
    finally:
        for rig in (one, eight):
            with suppress(AssertionError):
                rig.close()
            assert not private_folder.folder(rig.workspace).exists()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--imports", type=float, default=1.5, help="seconds of a core [1.5]")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="comfy-machine-benchmark-") as folder:
        measure(Path(folder).resolve(), arguments.rounds, arguments.imports)
    return conclude()


if __name__ == "__main__":
    sys.exit(main())
