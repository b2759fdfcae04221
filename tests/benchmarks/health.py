"""The health server: answers under load, what it costs, how soon it sees, and whether it grows.

Eight simulated instances, the last but one stopped (SIGSTOP) and the last dead, in one run with a
bare FastAPI route under the same uvicorn, whose p99 is printed beside each.

    python tests/benchmarks/health.py [--seconds 10] [--idle 30] [--soak MINUTES]

It ends with 1 when a figure is not reached.
"""

from __future__ import annotations

import argparse
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import requests

from tests.benchmarks.figures import at_most, conclude, exit_on_signals
from tests.contract.client import until
from tests.rig import PROJECT, free_ports
from tests.services.scene import Scene

LOAD = Path(__file__).with_name("load.py")
PATHS = (
    "/health/comfyui",
    "/health/comfyui/installation",
    "/health/comfyui/instances",
    "/health/comfyui/instances/0",
    "/health/comfyui/instances/{stopped}",
    "/health/comfyui/instances/{dead}",
    "/health/comfyui/models",
    "/livez",
    "/readyz",
    "/metrics",
    "/",
)
BARE = """
import sys, uvicorn
from fastapi import FastAPI, Response
app = FastAPI()
@app.get("/bare")
async def bare() -> Response:
    return Response(b'{"status":"healthy"}', media_type="application/json")
uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False,
            log_level="error")
"""


def paths(scene: Scene) -> list[str]:
    return [path.format(stopped=scene.gpus - 2, dead=scene.gpus - 1) for path in PATHS]


def p99(port: int, path: str, rate: int, seconds: float) -> float:
    """Milliseconds, asked `rate` times a second by a process of its own."""
    ended = subprocess.run(
        [sys.executable, str(LOAD), str(port), path, str(rate), str(seconds)],
        cwd=PROJECT, stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    found = sorted(json.loads(ended.stdout)["latencies"])
    assert len(found) == int(rate * seconds)
    return float(1000 * statistics.quantiles(found, n=100)[98])


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def compare(scene: Scene, rate: int, seconds: float) -> None:
    port = free_ports(1)
    bare = subprocess.Popen([sys.executable, "-c", BARE, str(port)])
    try:
        until(lambda: answers(port), 30, "the bare server")
        for path in paths(scene):
            beside = p99(port, "/bare", rate, seconds / 2)
            own = p99(scene.port, path, rate, seconds)
            ratio = f"; a bare route {beside:.3g} ms, {own / beside:.2f} times that"
            at_most(f"p99 of {path} at {rate}/s", own, 10, "ms", ratio)
    finally:
        bare.terminate()
        bare.wait()


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def idle(server: psutil.Process, seconds: float) -> None:
    before, begin = cpu(server), time.perf_counter()
    time.sleep(seconds)
    part = (cpu(server) - before) / (time.perf_counter() - begin)
    at_most(f"a core of its own, idle for {seconds:g} s", 100 * part, 3, "%")
    at_most("its memory", server.memory_info().rss / 1e6, 120, "MB")


def seen_after(scene: Scene, change: Callable[[], object], wanted: set[str]) -> float:
    """Seconds from a change of instance 0 until it is shown as one of the wanted."""
    change()
    begin = time.perf_counter()
    session = requests.Session()
    while True:
        told = session.get(f"{scene.url}/health/comfyui/instances/0").json()["status"]
        if told in wanted:
            return time.perf_counter() - begin
        time.sleep(0.01)


def changes(scene: Scene, rounds: int) -> None:
    well, found = {"healthy", "degraded"}, dict[str, list[float]]()
    for _ in range(rounds):
        process = scene.servers[0].process

        def note(what: str, change: Callable[[], object], wanted: set[str]) -> None:
            found.setdefault(what, []).append(seen_after(scene, change, wanted))

        note("hangs", lambda: process.send_signal(signal.SIGSTOP), {"unhealthy"})  # noqa: B023
        note("goes on", lambda: process.send_signal(signal.SIGCONT), well)  # noqa: B023
        note("dies", lambda: scene.servers[0].stop(signal.SIGKILL), {"down"})
        note("is back", lambda: scene.start(0), well)
    for what, each in found.items():
        at_most(f"seen that an instance {what}, the slowest of {rounds}", max(each), 2, "s")


def soak(scene: Scene, server: psutil.Process, minutes: float) -> None:
    """Ordinary and hostile traffic for so long; the first tenth is not counted."""
    points: list[tuple[float, int]] = []
    session, begin = requests.Session(), time.monotonic()
    while (now := time.monotonic() - begin) < 60 * minutes:
        for path in paths(scene):
            session.get(scene.url + path, timeout=10)
        with requests.get(f"{scene.url}/health/comfyui/events", stream=True, timeout=10) as events:
            next(events.iter_content(64))
        with suppress(OSError), socket.create_connection(("127.0.0.1", scene.port), 1) as bad:
            bad.sendall(b"GET / HTTP/9\r\n\x00\xff")
        if now > 6 * minutes:
            points.append((server.memory_info().rss / 1e6, server.num_fds()))
        time.sleep(0.5)
    third = max(1, len(points) // 3)
    early, late = points[:third], points[-third:]
    for number, what, most, unit in ((0, "memory", 2.0, "MB"), (1, "open files", 2.0, "files")):
        grown = statistics.median(p[number] for p in late) - statistics.median(
            p[number] for p in early
        )
        at_most(f"grown in {minutes:g} minutes of soak: {what}", grown, most, unit)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--instances", type=int, default=8, help="3 or more [8]")
    parser.add_argument("--rate", type=int, default=500, help="requests per second [500]")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--idle", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--soak", type=float, default=0, help="minutes")
    wanted = parser.parse_args()
    exit_on_signals()
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder), wanted.instances)
        stopped, dead = scene.gpus - 2, scene.gpus - 1
        try:
            scene.serve()
            for gpu in range(scene.gpus):
                scene.start(gpu)
            scene.servers[stopped].process.send_signal(signal.SIGSTOP)
            scene.servers[dead].stop(signal.SIGKILL)
            scene.until(lambda told: told["status"] == "unhealthy", stopped)
            scene.until(lambda told: told["status"] == "down", dead)
            assert scene.process
            server = psutil.Process(scene.process.pid)
            idle(server, wanted.idle)
            compare(scene, wanted.rate, wanted.seconds)
            changes(scene, wanted.rounds)
            if wanted.soak:
                soak(scene, server, wanted.soak)
            at_most("its memory at the end", server.memory_info().rss / 1e6, 120, "MB")
        finally:
            scene.close()
    return conclude()


if __name__ == "__main__":
    sys.exit(main())
