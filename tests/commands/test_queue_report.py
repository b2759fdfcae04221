"""The queue of jobs in a line of doit status."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from comfy_machine.commands.shared import queue_report
from comfy_machine.host.pm2 import apps
from comfy_machine.pm2 import own_service
from tests.commands.test_json import ask, check
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.rig import Rig, free_ports
from tests.services import samples

PATIENCE = 60.0
TOKEN = "canary-token"


@pytest.fixture
def rig(machine: MachineMaker) -> Rig:
    """A machine with a health server, and jobs behind a token."""
    found = machine(health={"server": True, "port": free_ports(1)})
    found.spec["jobs"] = {
        "port": found.port(1), "gateway_port": found.port(2), "token": "${JOBS_TOKEN}",
    }  # fmt: skip
    return found


def test_the_health_server_tells_the_queue_with_the_token_and_without_telling_the_token(
    rig: Rig,
) -> None:
    assert "JOBS_TOKEN isn't set" in rig.doit(code=None).output
    rig.doit(JOBS_TOKEN=TOKEN)
    assert rig.doit(JOBS_TOKEN=TOKEN).executed == set()

    def line() -> str:
        said = re.search(
            r"^jobs: .*$", rig.doit("status", code=None, JOBS_TOKEN=TOKEN).output, re.M
        )
        return said[0] if said else ""

    until(lambda: line() == "jobs: 0 wait, 0 run, 0 dead", PATIENCE, "an empty queue")
    document = ask(rig, "status", JOBS_TOKEN=TOKEN)
    check("status", document)
    assert document["queue"] == {
        "waiting": 0, "running": 0, "dead": 0, "oldest": None, "paused": False,
    }  # fmt: skip
    file = own_service.settings_file(rig.layout, apps.SERVER)
    assert json.loads(file.read_text())["jobs"]["gateway"] == f"http://127.0.0.1:{rig.port(2)}"
    paths = (path for path in rig.workspace.rglob("*") if path.is_file())
    holding = [path for path in paths if TOKEN.encode() in path.read_bytes()]
    assert {path.parent for path in holding} == {rig.layout.secrets}
    assert {path.name.rpartition("-")[0] for path in holding} == {apps.SERVER, apps.GATEWAY}
    assert TOKEN not in rig.pm2("jlist")

    rig.spec["jobs"] = False
    rig.doit()
    shown = ask(rig, "status")
    check("status", shown)
    assert "queue" not in shown
    assert line() == ""
    assert not [*rig.layout.secrets.glob(f"{apps.SERVER}-*")]


def test_the_line() -> None:
    told = samples.queue(oldest=time.time() - 12.5).model_dump()
    report = queue_report.read(told)
    assert str(report) == "jobs: 3 wait (the oldest 12s), 2 run, 1 dead"
    told |= {"oldest": None, "waiting": 0, "paused": True, "dead": 0, "running": 0}
    assert str(queue_report.read(told)) == "jobs: paused, 0 wait, 0 run, 0 dead"


@pytest.mark.parametrize("told", [None, [], {}, {"ok": False, "reason": "silent"}, {"ok": True}])
def test_where_the_server_does_not_tell_there_is_no_line(told: Any) -> None:
    assert queue_report.read(told) is None
