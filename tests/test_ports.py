"""Ports: decided before anything starts, kept, and never taken from a stranger."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
import requests

from comfy_machine import ports as stage
from comfy_machine.engine.run import Run
from comfy_machine.host.system.failure import Failure
from comfy_machine.spec import load
from tests.conftest import MachineMaker
from tests.rig import PROJECT, Rig

LISTEN = """
import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", int(sys.argv[1])))
s.listen()
print("up", flush=True)
sys.stdin.read()
"""
WORKER = "import time; time.sleep(600)"


@contextmanager
def stranger(port: int) -> Iterator[int]:
    """The pid of somebody else who listens on a port."""
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "up\n"
            yield process.pid
            assert process.poll() is None, "nobody ended it"
        finally:
            process.kill()


def ports(rig: Rig) -> dict[str, int | None]:
    return {name: app.port for name, app in rig.running().items() if name.startswith("comfyui")}


def test_a_stranger_on_the_port_is_named_before_anything_starts(machine: MachineMaker) -> None:
    rig = machine(instances={"gpus": 2})
    with stranger(rig.port(1)) as pid:
        run = rig.doit(code=2)
    assert run.failed == {"ports"}
    assert f"comfyui-gpu1 can't start: port {rig.port(1)} is held by pid {pid} (" in run.output
    assert "instances.port_conflict: next" in run.output
    assert rig.running() == {}


def test_the_plan_says_that_a_port_is_held(machine: MachineMaker) -> None:
    rig = machine()
    with stranger(rig.port()) as pid:
        assert f"is held by pid {pid}" in rig.doit("plan", code=2).output


def test_next_takes_a_free_port_that_everyone_follows_and_keeps_it(machine: MachineMaker) -> None:
    rig = machine(
        instances={"gpus": 2, "port_conflict": "next"},
        workers=[{"name": "fetch", "command": [sys.executable, "-c", WORKER]}],
    )
    first, second, third = (rig.port(number) for number in range(3))
    with stranger(first):
        run = rig.doit()
        assert f"comfyui-gpu0 takes port {third}: port {first} is held by" in run.output
        assert ports(rig) == {"comfyui-gpu0": third, "comfyui-gpu1": second}
        worker = psutil.Process(rig.running()["fetch-gpu0"].pid).environ()
        assert worker["COMFYUI_URL"] == f"http://127.0.0.1:{third}"
        assert worker["WORKER_COMFYUI_PORT"] == str(third)
        shown = json.loads(rig.doit("status", "--json").output)["instances"]["0"]
        assert (shown["port"], shown["health"]) == (third, "healthy")
        assert f"{rig.layout.outputs(0)}" in rig.doit("smoke").output
        assert rig.doit().executed == set()
    assert rig.doit().executed == set(), "it keeps its port when the stranger has left"
    rig.doit(ENABLE_COMFYUI="false")
    assert rig.running() == {}
    rig.doit()
    assert ports(rig) == {"comfyui-gpu0": third, "comfyui-gpu1": second}
    rig.spec["instances"]["port_conflict"] = "fail"
    rig.doit()
    assert ports(rig) == {"comfyui-gpu0": first, "comfyui-gpu1": second}


def test_an_orphan_of_ours_is_ended_and_its_port_used(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit()
    orphan = rig.running()["comfyui-gpu0"].pid
    rig.kill_daemon()
    run = rig.doit()
    assert {"instances:stop", "instances:start"} <= run.executed
    assert rig.running()["comfyui-gpu0"].pid != orphan
    assert ports(rig) == {"comfyui-gpu0": rig.port()}


def test_ports_that_change_places_end_well(machine: MachineMaker) -> None:
    rig = machine(instances={"gpus": 2})
    rig.doit()
    rig.spec["instances"]["overrides"] = {0: {"port": rig.port(1)}, 1: {"port": rig.port(0)}}
    rig.doit()
    assert ports(rig) == {"comfyui-gpu0": rig.port(1), "comfyui-gpu1": rig.port(0)}
    assert rig.doit().executed == set()


def test_a_port_that_is_taken_during_the_build_is_told_and_the_next_run_has_another(
    machine: MachineMaker,
) -> None:
    rig = machine(instances={"port_conflict": "next"})
    rig.write()
    spec = load(rig.file, {})
    run = Run(spec, spec.instances_for(0))
    with stranger(rig.port()):
        with pytest.raises(Failure, match=r"held by pid \d+ .*; doit again takes the next free"):
            stage.refuse_taken(run, run.instances)
        rig.doit()
    assert ports(rig) == {"comfyui-gpu0": rig.port() + 1}
    stage.refuse_taken(run, run.instances)


@pytest.mark.afresh
def test_every_taken_port_is_named_before_anything_is_built(machine: MachineMaker) -> None:
    rig = machine(health={"server": True})
    rig.spec["health"]["port"] = rig.port(2)
    with stranger(rig.port()) as one, stranger(rig.port(2)) as other:
        run = rig.doit(code=2)
        assert (run.executed, run.failed) == ({"directories"}, {"ports"})
        (line,) = [line for line in run.output.splitlines() if line.startswith("✗ ports: ")]
        assert f"comfyui-gpu0 can't start: port {rig.port()} is held by pid {one} (" in line
        assert f"health-server can't start: port {rig.port(2)} is held by pid {other} (" in line
        assert "choose another health.port and instances.port_start, or set" in line
        assert rig.doit("build").executed >= {"source", "environment", "validation"}
    assert rig.layout.generation.is_dir(), "a build starts nothing, so it asks for no port"


def test_next_covers_the_health_server_which_everyone_finds(machine: MachineMaker) -> None:
    rig = machine(
        instances={"port_conflict": "next"},
        workers=[{"name": "fetch", "command": [sys.executable, "-c", WORKER]}],
        health={"server": True},
    )
    wanted = rig.spec["health"]["port"] = rig.port(2)
    with stranger(wanted), stranger(rig.port()):
        run = rig.doit()
        page = json.loads(rig.doit("status", "--json").output)["page"]
        got = int(page.rpartition(":")[2])
        assert got not in (wanted, rig.port())
        assert f"health-server takes port {got}: port {wanted} is held by" in run.output
        assert f"progress and health: {page}\n" in run.output
        assert requests.get(f"{page}/livez", timeout=30).ok
        assert f"page: {page}\n" in rig.doit("status").output
        assert rig.doit("probe").output == "healthy\n"
        watcher = json.loads((rig.layout.apps / "watcher.json").read_text())
        assert watcher["server"]["port"] == got
        assert rig.doit().executed == set()
    assert rig.doit().executed == set(), "it keeps its port when the stranger has left"
    rig.doit("down")
    rig.doit()
    assert requests.get(f"{page}/livez", timeout=30).ok
    rig.spec["instances"]["port_conflict"] = "fail"
    rig.doit()
    assert requests.get(f"http://127.0.0.1:{wanted}/livez", timeout=30).ok


def test_two_machines_of_one_file_run_beside_each_other(machine: MachineMaker) -> None:
    one, other = (machine(name, instances={"port_conflict": "next"}) for name in ("one", "other"))
    for rig in (one, other):
        rig.spec["instances"]["port_start"] = one.port()
        rig.spec["health"] = {"port": one.port(2)}
        rig.doit()
    pages = [json.loads(rig.doit("status", "--json").output)["page"] for rig in (one, other)]
    assert pages[0] != pages[1]
    assert [rig.doit("probe").output for rig in (one, other)] == ["healthy\n"] * 2
    assert len({*ports(one).values(), *ports(other).values()}) == 2


def test_the_demo_leaves_other_programs_their_ports() -> None:
    demo = load(PROJECT / "examples" / "simulation" / "machine.yaml", {})
    assert (demo.instances.port_conflict, demo.health.server) == ("next", True)
    assert "9090" not in (PROJECT / "Makefile").read_text(), "status names the page's address"
