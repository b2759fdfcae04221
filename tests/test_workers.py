"""Workers: once per instance, behind its gate, told where it is."""

from __future__ import annotations

import socket
import sys

import psutil

from comfy_machine.host.pm2 import pm2
from tests.conftest import MachineMaker

WORKER = """
import os, time, urllib.request
urllib.request.urlopen(os.environ["COMFYUI_URL"] + "/prompt").read()
time.sleep(600)
"""
WAITS = "import time; time.sleep(600)"


def test_each_instance_gets_its_worker_that_finds_it_ready(machine: MachineMaker) -> None:
    references = {"OWN": "${instance.gpu} ${instance.name} ${instance.port}", "COMFYUI_PORT": "1"}
    rig = machine(
        instances={"gpus": 2, "drain_timeout": 77},
        workers=[
            {"name": "fetch", "command": [sys.executable, "-c", WORKER], "env": {"A": "b"}},
            {
                "name": "push", "command": [sys.executable, "-c", WORKER], "env": references,
                "cwd": "shared", "stop_timeout": 5,
            },
            {
                "name": "count", "command": [sys.executable, "-c", WAITS],
                "per": "machine", "env": {"WORKER_ID": "mine"},
            },
        ],
    )  # fmt: skip
    rig.doit()
    running = rig.running()
    assert set(running) == {
        "comfyui-gpu0", "comfyui-gpu1", "fetch-gpu0", "fetch-gpu1", "push-gpu0", "push-gpu1",
        "count-machine",
    }  # fmt: skip
    for gpu in (0, 1):
        env = psutil.Process(running[f"fetch-gpu{gpu}"].pid).environ()
        assert env["WORKER_ID"] == f"{socket.gethostname()}-fetch-gpu{gpu}"
        assert env["COMFYUI_URL"] == f"http://127.0.0.1:{rig.port(gpu)}"
        assert env["COMFYUI_HOST"] == env["WORKER_COMFYUI_HOST"] == "127.0.0.1"
        assert env["COMFYUI_PORT"] == env["WORKER_COMFYUI_PORT"] == str(rig.port(gpu))
        assert env["WORKER_OUTPUT_DIRECTORY"] == str(rig.layout.outputs(gpu))
        assert env["A"] == "b"
        push = psutil.Process(running[f"push-gpu{gpu}"].pid)
        assert push.environ()["OWN"] == f"{gpu} comfyui-gpu{gpu} {rig.port(gpu)}"
        assert push.environ()["COMFYUI_PORT"] == "1"
        assert push.cwd() == str(rig.workspace / "shared")
    shared = psutil.Process(running["count-machine"].pid).environ()
    assert shared["COMFYUI_URLS"].split() == [f"http://127.0.0.1:{rig.port(gpu)}" for gpu in (0, 1)]
    assert shared["WORKER_ID"] == "mine"
    assert "COMFYUI_URL" not in shared
    graces = {name: app["pm2_env"]["kill_timeout"] for name, app in pm2.apps(rig.layout).items()}
    assert [graces[name] for name in ("comfyui-gpu0", "fetch-gpu0", "push-gpu0")] == [
        10_000, 77_000, 5_000,
    ]  # fmt: skip
    assert rig.doit().executed == set()
    rig.spec["workers"] = []
    assert rig.doit().executed == {
        "pm2:gpu0",
        "pm2:gpu1",
        "instances:stop",
        "watcher",
        "collection",
    }
    assert set(rig.running()) == {"comfyui-gpu0", "comfyui-gpu1"}


def test_a_worker_that_dies_at_once_fails_with_its_last_words(machine: MachineMaker) -> None:
    # Python would take a second to begin on a busy machine.
    command = ["sh", "-c", "echo no broker >&2; exit 1"]
    rig = machine(workers=[{"name": "fetch", "command": command}])
    run = rig.doit(code=2)
    assert run.failed == {"workers:fetch-gpu0"}
    assert "fetch-gpu0 exited at once: no broker" in run.output


def test_no_worker_starts_behind_an_instance_that_is_not_healthy(machine: MachineMaker) -> None:
    rig = machine(
        instances={"args": ["no-such-argument"]},
        workers=[{"name": "fetch", "command": [sys.executable, "-c", WORKER]}],
    )
    rig.doit(code=2)
    assert "fetch-gpu0" not in rig.running()


def test_a_worker_command_that_is_not_there_is_named_before_anything_starts(
    machine: MachineMaker,
) -> None:
    rig = machine(workers=[{"name": "fetch", "command": ["no-such-program"]}])
    run = rig.doit(code=2)
    assert "worker fetch: no-such-program is missing: correct command" in run.output
    assert rig.running() == {}


def test_a_secret_reaches_its_worker_and_nobody_else(machine: MachineMaker) -> None:
    rig = machine(
        workers=[
            {
                "name": "fetch",
                "command": [sys.executable, "-c", WORKER],
                "env": {"TOKEN": "${FETCH_TOKEN}"},
            }
        ]
    )
    missing = rig.doit(code=2)
    assert "workers[0].env.TOKEN: the variable FETCH_TOKEN isn't set: set it" in missing.output
    assert rig.running() == {}
    rig.doit(FETCH_TOKEN="canary-1")
    worker = psutil.Process(rig.running()["fetch-gpu0"].pid)
    assert worker.environ()["TOKEN"] == "canary-1"
    assert "TOKEN" not in psutil.Process(rig.running()["comfyui-gpu0"].pid).environ()
    assert "canary-1" not in " ".join(worker.cmdline())
    assert "canary-1" not in rig.pm2("jlist")
    secret_files = [
        path
        for path in rig.layout.machine.rglob("*")
        if path.is_file() and not path.is_symlink() and b"canary-1" in path.read_bytes()
    ]
    assert secret_files == list(rig.layout.secrets.glob("fetch-gpu0-*.json"))
    assert len(secret_files) == 1
    assert secret_files[0].stat().st_mode & 0o777 == 0o600
    rotated = rig.doit(FETCH_TOKEN="canary-2")
    assert rotated.executed == {"pm2:gpu0", "workers:fetch-gpu0", "collection"}
    (kept,) = rig.layout.secrets.glob("fetch-gpu0-*.json")
    assert "canary-2" in kept.read_text(), "what nothing needs any more is not kept"
