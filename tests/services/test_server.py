"""The health server under `doit`: up before all else, and through whatever becomes of the runs."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests

from comfy_machine.host.pm2 import apps, pm2
from comfy_machine.host.system import files, private_folder
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.forge import Forge
from tests.rig import Rig, snapshot

PATIENCE = 60.0
"""Seconds for what a run does, on a busy machine."""
HANGS = """
import os, time
# Not in the build, which loads it too.
while "COMFYUI_PORT" in os.environ and os.path.exists({!r}):
    time.sleep(0.05)
"""
Told = dict[str, Any]


@dataclass
class Asker:
    """Asks the health server of a rig."""

    rig: Rig
    headers: dict[str, str | bytes] = field(default_factory=dict)

    def get(self, path: str) -> requests.Response:
        port = self.rig.spec["health"]["port"]
        return requests.get(f"http://127.0.0.1:{port}{path}", headers=self.headers, timeout=30)

    def told(self, path: str = "") -> tuple[int, Told]:
        answer = self.get(f"/health/comfyui{path}")
        return answer.status_code, answer.json()

    def code(self, path: str) -> int:
        """0 where nobody answers."""
        try:
            return self.get(path).status_code
        except requests.ConnectionError:
            return 0

    def until(self, path: str, wanted: Callable[[Told], object]) -> tuple[int, Told]:
        last: list[tuple[int, Told]] = []

        def look() -> bool:
            last[:] = [self.told(path)]
            return bool(wanted(last[0][1]))

        try:
            until(look, PATIENCE, f"{path} to be so")
        except AssertionError as error:
            raise AssertionError(f"{error}; at last: {last}") from None
        return last[0]


def _runs(pid: int) -> bool:
    """Not so what has ended and only waits for its parent to take note of it."""
    try:
        return apps.runs(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def _state(told: Told, task: str) -> str:
    return str(next(each["state"] for each in told["run"]["tasks"] if each["name"] == task))


def pid_of(rig: Rig) -> int:
    app = rig.server()
    assert app is not None
    assert app.supervised or pm2.daemon(rig.layout)
    return app.pid


def test_it_answers_while_all_is_installed_and_through_every_later_run(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    go, hang, script = tmp_path / "go", tmp_path / "hang", tmp_path / "script"
    hang.touch()
    node = {
        "url": forge.node("alpha", {"prestartup_script.py": HANGS.format(str(hang))}).url,
        "script": f"echo $$ > {script}; until test -e {go}; do sleep 0.05; done",
    }
    rig = machine(
        custom_nodes=[node],
        workers=[{"name": "fetch", "command": [sys.executable, "-c", "input()"]}],
        health={"server": True},
    )
    rig.spec["health"]["port"] = rig.port(3)
    ask = Asker(rig)

    with rig.going() as run:
        until(lambda: run.poll() is not None or ask.code("/livez"), PATIENCE, "the server")
        assert run.poll() is None, run.communicate()[0]
        code, told = ask.until("/installation", lambda told: told["reason"] == "generation:scripts")
        assert (code, told["status"]) == (503, "installing")
        assert (told["run"]["pid"], told["run"]["state"]) == (run.pid, "running")
        assert 0 < told["run"]["percent"] < 100
        tasks = {task["name"]: task for task in told["run"]["tasks"]}
        assert tasks["generation:scripts"]["state"] == "running"
        assert tasks["nodes:alpha"]["state"] == "done"
        assert tasks["instances:start"]["state"] == "waiting"
        assert (ask.code("/livez"), ask.code("/readyz"), ask.code("/")) == (200, 503, 200)
        code, told = ask.told()
        assert (code, told["status"], told["run"]["pid"]) == (503, "installing", run.pid)
        assert [each["waits_for"] for each in told["services"]] == [
            ["installation"], ["comfyui-gpu0"],
        ]  # fmt: skip
        assert "comfy_machine_run_running 1.0" in ask.get("/metrics").text
        assert rig.doit("probe", code=1).output == "installing: generation:scripts; " + (
            "wait: a doit run is in progress\n"
        )
        first = pid_of(rig)

        go.touch()
        code, told = ask.until("/instances/0", lambda told: told["layers"]["running"]["pid"])
        assert (code, told["status"]) == (503, "starting")
        (worker,) = told["workers"]
        assert (worker["name"], worker["waits_for"]) == ("fetch-gpu0", ["comfyui-gpu0"])
        assert worker["reason"].startswith("comfyui-gpu0 is starting: nothing answers on http://")
        hang.unlink()
        assert run.wait(PATIENCE) == 0

    for path in ("", "/installation", "/instances", "/instances/0", "/models"):
        code, told = ask.until(path, lambda told: told["status"] == "healthy")
        assert (code, told["reason"], told["advice"]) == (200, "", "")
    assert ask.code("/readyz") == 200
    assert rig.doit("probe").output == "healthy\n"
    assert "health-server" not in rig.doit("status").output, "it is no stranger"
    assert rig.doit().executed == set()
    assert pid_of(rig) == first

    # What the gate of a run can't see, it does.
    watched = {"pid": rig.running()["comfyui-gpu0"].pid, "reason": "it is too large"}
    files.write_receipt(rig.layout.watched(0), watched)
    _, told = ask.until("/instances/0", lambda told: told["status"] == "unhealthy")
    row = json.loads(rig.doit("status", "--json", code=1).output)["instances"]["0"]
    assert (row["health"], row["code"], row["reason"]) == (
        told["status"], told["code"], told["reason"],
    )  # fmt: skip
    said = rig.doit("probe", "comfyui-gpu0", code=1).output
    assert said == f"{told['status']}: {told['reason']}; {told['advice']}\n"
    failed = rig.doit(code=2)
    assert failed.failed == {"health:gpu0"}
    assert "comfyui-gpu0: it is too large" in failed.output
    files.remove(rig.layout.watched(0))
    ask.until("/instances/0", lambda told: told["status"] == "healthy")

    # An edit: a node comes, and an instance.
    local = tmp_path / "local"
    files.write_text(local / "__init__.py", "NODE_CLASS_MAPPINGS = {}\n")
    rig.spec["custom_nodes"].append({"path": str(local)})
    rig.spec["instances"]["gpus"] = 2
    assert "server" in rig.doit().executed
    code, told = ask.until("/instances/1", lambda told: told["status"] == "healthy")
    assert told["port"] == rig.port(1)
    nodes = ask.until("", lambda told: told["status"] == "healthy") and ask.told("/installation")
    assert [node["name"] for node in nodes[1]["nodes"]] == ["alpha", "local"]

    # A run that is killed.
    go.unlink()
    script.unlink()
    node["script"] = f"true; {node['script']}"
    with rig.going() as run:
        until(lambda: run.poll() is not None or script.exists(), PATIENCE, "the script")
        assert run.poll() is None, run.communicate()[0]
        ask.until("/installation", lambda told: _state(told, "generation:scripts") == "running")
        run.kill()
        code, told = ask.until("/installation", lambda told: told["run"]["state"] != "running")
        assert (code, told["status"], told["run"]["state"]) == (200, "degraded", "interrupted")
        assert told["reason"].endswith("was interrupted, at generation:scripts")
        assert ask.told()[1]["reason"] == told["reason"]

    # A run that fails, with an installation that is whole.
    rig.spec["custom_nodes"][0] = {"url": str(tmp_path / "nowhere"), "name": "alpha"}
    assert rig.doit(code=None).failed == {"nodes:alpha"}
    code, told = ask.until("/installation", lambda told: told["run"]["state"] == "failed")
    (failed,) = [task for task in told["run"]["tasks"] if task["state"] == "failed"]
    assert failed["name"] == "nodes:alpha"
    assert str(tmp_path / "nowhere") in failed["reason"]
    assert Path(failed["log"]).is_file()
    assert told["advice"] == "correct the error, then run doit"

    # Without instances it stays.
    rig.spec["custom_nodes"][0] = node
    go.touch()
    rig.doit(ENABLE_COMFYUI="false")
    code, told = ask.until("", lambda told: told["status"] == "disabled")
    assert (code, told["instances"]) == (200, {})
    assert pid_of(rig) == first, "through all of this"


def test_its_token_its_port_and_its_end(machine: MachineMaker, tmp_path: Path) -> None:
    rig = machine(health={"server": True, "token": "${T}"})
    port = rig.spec["health"]["port"] = rig.port(2)
    token = "pä:ss \"CANARY-1'-密码"
    rig.env["T"] = token
    ask = Asker(rig)

    rig.doit("build")
    assert rig.server() is None
    assert pm2.daemon(rig.layout) is None, "a build starts nothing"
    before = snapshot(rig.layout.machine)
    assert rig.doit("plan", "build").planned == set()
    plan = rig.doit("plan")
    assert "~ server: health-server isn't running" in plan.output
    assert (snapshot(rig.layout.machine), rig.server()) == (before, None)

    with socket.create_server(("127.0.0.1", port)):
        run = rig.doit(code=2)
    assert run.failed == {"server"}
    held = f"health-server can't start: port {port} is held by pid {os.getpid()} ("
    assert [line for line in run.output.splitlines() if held in line]
    assert rig.healthy(), "the instances come up all the same"

    # Collection has something to note again, and then removes what nobody needs.
    (rig.layout.state / "healthy.json").unlink()
    assert rig.doit().executed == {"server", "collection"}
    first = pid_of(rig)
    assert (ask.code("/livez"), ask.code("/health/comfyui")) == (200, 401)
    ask.headers["Authorization"] = b"Bearer " + token.encode()
    ask.until("", lambda told: told["status"] == "healthy")
    assert rig.doit("probe").output == "healthy\n"
    _is_nowhere_to_be_seen("CANARY-1", rig, ask, first)

    # Its app is restarted with the file that holds the token.
    psutil.Process(first).kill()
    until(lambda: ask.code("/health/comfyui") == 200, PATIENCE, "PM2 to start it again")
    (file,) = rig.layout.secrets.glob("health-server-*.json")
    file.unlink()
    second = pid_of(rig)
    assert rig.doit().executed == {"server"}
    assert (file.is_file(), pid_of(rig)) == (True, second)

    rig.env["T"] = "CANARY-2"
    assert rig.doit().executed == {"server"}
    assert ask.code("/health/comfyui") == 401
    ask.headers["Authorization"] = "Bearer CANARY-2"
    assert ask.code("/health/comfyui") in (200, 503)
    (kept,) = rig.layout.secrets.glob("health-server-*.json")
    assert "CANARY-2" in kept.read_text()

    # A port that somebody has is none to move to.
    third = pid_of(rig)
    rig.spec["health"]["port"] = port + 1
    with socket.create_server(("127.0.0.1", port + 1)):
        run = rig.doit(code=2)
        assert run.failed == {"server"}, run.output
        assert pid_of(rig) == third
    assert rig.doit().executed == {"server"}
    assert ask.code("/health/comfyui") in (200, 503)
    with socket.create_server(("127.0.0.1", port)):
        pass
    assert not _runs(third)

    # PM2 dies, and leaves an orphan that answers on.
    orphan = pid_of(rig)
    rig.kill_daemon()
    assert ask.code("/livez") == 200
    assert "server" in rig.doit().executed
    assert pid_of(rig) != orphan
    assert not _runs(orphan)
    ask.until("", lambda told: told["status"] == "healthy")

    rig.spec["health"]["server"] = False
    assert rig.doit().executed == {"server", "watcher"}
    assert (rig.server(), ask.code("/livez")) == (None, 0)
    assert not list(rig.layout.secrets.glob("*"))
    assert rig.healthy()
    assert rig.doit().executed == set()

    rig.spec["health"] = {"port": port}
    ask.headers.clear()
    assert rig.doit("server").executed == {"server"}
    assert ask.code("/livez") == 200
    last = pid_of(rig)
    assert "1 stopped" in rig.doit("down").output
    assert (rig.server(), ask.code("/livez"), _runs(last)) == (None, 0, False)


def _is_nowhere_to_be_seen(secret: str, rig: Rig, ask: Asker, server: int) -> None:
    def files_with_it(folder: Path) -> list[Path]:
        return [
            path
            for path in folder.rglob("*")
            if path.is_file() and not path.is_symlink() and secret.encode() in path.read_bytes()
        ]

    (file,) = files_with_it(rig.folder)
    assert file.parent == rig.layout.secrets
    assert file.stat().st_mode & 0o777 == 0o600
    assert files_with_it(private_folder.folder(rig.workspace)) == []
    assert secret not in rig.pm2("jlist")
    for process in psutil.process_iter():
        try:
            assert secret not in " ".join(process.cmdline())
            assert process.pid == server or secret not in str(process.environ())
        except psutil.Error:
            continue
    assert secret in str(psutil.Process(server).environ())
    for path in ("", "/installation", "/instances", "/instances/0", "/models"):
        assert secret not in ask.get(f"/health/comfyui{path}").text
    for path in ("/", "/metrics", "/openapi.json"):
        assert secret not in ask.get(path).text
