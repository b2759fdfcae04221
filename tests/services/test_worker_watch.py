"""Workers are supervised like instances: held, started again, and asked whether they live."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

from comfy_machine.host.pm2 import apps, pm2
from comfy_machine.host.system import files
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.rig import Rig
from tests.services.test_watcher_on_a_machine import PATIENCE, hasten

WAITS = "import time; time.sleep(600)"
UNTIL_THERE = """
import os, sys, time
if not os.path.exists(sys.argv[1]):
    sys.exit("not yet")
time.sleep(600)
"""
SLOW_START = """
import os, time
if 'COMFYUI_PORT' in os.environ:
    while os.path.exists({wait!r}):
        time.sleep(0.05)
"""


def pid(rig: Rig, name: str) -> int | None:
    app = rig.running().get(name)
    return app.pid if app else None


def said(rig: Rig) -> str:
    return rig.layout.log("watcher").read_text()


def test_workers_are_held_while_their_instance_is_not_healthy_and_never_given_up(
    machine: MachineMaker, tmp_path: Path
) -> None:
    wait, there, alive = tmp_path / "wait", tmp_path / "there", tmp_path / "alive"
    node = tmp_path / "slow"
    node.mkdir()
    (node / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}")
    (node / "prestartup_script.py").write_text(SLOW_START.format(wait=str(wait)))
    there.touch()
    alive.touch()
    rig = machine(
        custom_nodes=[{"path": str(node)}],
        workers=[
            {"name": "fetch", "command": [sys.executable, "-c", WAITS]},
            {
                "name": "stay", "command": [sys.executable, "-c", WAITS],
                "restart_with_instance": False,
            },
            {"name": "flaky", "command": [sys.executable, "-c", UNTIL_THERE, str(there)]},
            {
                "name": "asked", "command": [sys.executable, "-c", WAITS],
                "env": {"FILE": str(alive)},
                "health": {"command": ["sh", "-c", 'test -e "$FILE" && touch "$FILE.passed"']},
            },
        ],
    )  # fmt: skip
    rig.doit()
    hasten(rig, hung=1)
    fetch, stay = pid(rig, "fetch-gpu0"), pid(rig, "stay-gpu0")
    instance = psutil.Process(pid(rig, "comfyui-gpu0"))
    answered = files.read_receipt(rig.layout.answered(0))
    assert answered == {"process": apps.identity(instance.pid)}, "its next watcher knows at once"
    wait.touch()
    instance.kill()
    until(lambda: pid(rig, "fetch-gpu0") is None, PATIENCE, "the worker to be held")
    until(lambda: pid(rig, "comfyui-gpu0") not in (None, instance.pid), PATIENCE, "PM2")
    assert pid(rig, "stay-gpu0") == stay
    assert "fetch-gpu0" not in rig.running(), "its instance is still starting"
    wait.unlink()
    until(lambda: pid(rig, "fetch-gpu0") not in (None, fetch), PATIENCE, "the worker")
    assert rig.healthy()

    until(lambda: pid(rig, "flaky-gpu0"), PATIENCE, "the worker that fails")
    there.unlink()
    flaky = psutil.Process(pid(rig, "flaky-gpu0"))
    flaky.kill()
    until(
        lambda: pm2.apps(rig.layout)["flaky-gpu0"]["pm2_env"]["status"] == pm2.GIVEN_UP,
        PATIENCE,
        "PM2 to give up",
    )
    there.touch()
    until(lambda: pid(rig, "flaky-gpu0"), PATIENCE, "another attempt")

    asked = until(lambda: pid(rig, "asked-gpu0"), PATIENCE, "the worker that is asked")
    earlier = said(rig)
    passed = alive.with_suffix(".passed")
    hasten(rig, hung=60)
    # Not before: its predecessor asks until then.
    passed.unlink(missing_ok=True)
    until(passed.exists, PATIENCE, "its new watcher to ask it")
    alive.unlink()
    until(lambda: "it fails its probe" in rig.doit("status").output, PATIENCE, "status")
    told = rig.doit("probe").output
    assert told.startswith("degraded: asked-gpu0: it fails its probe: sh -c test -e")
    alive.touch()
    until(lambda: rig.doit("probe").output == "healthy\n", PATIENCE, "its next probe")
    hasten(rig, hung=1)
    passed.unlink(missing_ok=True)
    until(passed.exists, PATIENCE, "its third watcher to ask it")
    alive.unlink()
    until(lambda: pid(rig, "asked-gpu0") not in (None, asked), PATIENCE, "its restart")
    assert f"asked-gpu0 (pid {asked}) was restarted: sh -c" in said(rig).removeprefix(earlier)
    assert {name for name in rig.doit().executed if name.startswith("workers:")} == set()
