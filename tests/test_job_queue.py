"""Jobs on a whole machine: what they start, what it survives, what ends, and what stays."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from comfy_machine import job_queue
from comfy_machine.engine.run import Run
from comfy_machine.host.pm2 import apps, pm2, shutdown
from comfy_machine.host.system import nats_server
from comfy_machine.host.system.nats_server import Account
from comfy_machine.pm2 import own_service
from comfy_machine.pm2 import stage as configs
from comfy_machine.services.jobs.job_settings import Bucket
from comfy_machine.services.jobs.object_files import ObjectFiles
from comfy_machine.spec import load
from tests.conftest import MachineMaker
from tests.contract.client import Client, picture, preview, until
from tests.rig import Rig
from tests.services.jobs.object_store import ACCESS_KEY, SECRET_KEY, ObjectStore
from tests.services.test_watcher_on_a_machine import PATIENCE, hasten
from tests.test_ports import stranger

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TASKS = {"jobs:server", "jobs:scheduler", "jobs:gateway"}


@pytest.fixture
def rig(machine: MachineMaker) -> Rig:
    """A machine with jobs that hasn't been started."""
    found = machine()
    found.spec["jobs"] = {"port": found.port(1), "gateway_port": found.port(2)}
    found.spec["health"]["port"] = found.port(3)
    return found


def pids(rig: Rig) -> dict[str, int]:
    """The programs of jobs that run."""
    running = apps.running(rig.workspace, None)
    return {app.name: app.pid for app in running if app.name in apps.JOBS}


def run_job(rig: Rig) -> str:
    """A job that the gateway has taken and an instance has done."""
    client = Client(f"http://127.0.0.1:{rig.spec['jobs']['gateway_port']}")
    prompt = {"1": picture(), "2": preview("1")}

    def taken() -> str | None:
        """While NATS starts again the gateway takes none."""
        answer = client.post("/prompt", json={"prompt": prompt})
        return str(answer.json()["prompt_id"]) if answer.ok else None

    job = until(taken, PATIENCE, "the gateway")
    assert job
    assert client.result(job)["status"]["status_str"] == "success"
    return job


def is_known(rig: Rig, job: str) -> bool:
    client = Client(f"http://127.0.0.1:{rig.spec['jobs']['gateway_port']}")
    return job in client.json(f"/history/{job}")


def machine_of(rig: Rig) -> dict[str, Any]:
    status = rig.doit("status", "--json", code=None).output
    found: dict[str, Any] = json.loads(status)["machine"]
    return found


@contextmanager
def nats(folder: Path, port: int, *arguments: str) -> Iterator[None]:
    """A NATS server of somebody else."""
    program = Path(sysconfig.get_path("scripts"), "nats-server")
    words = [str(program), "-a", "127.0.0.1", "-p", str(port), *arguments]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, cwd=folder) as process:
        try:
            until(lambda: nats_server.answers(port), PATIENCE, "the server")
            yield
        finally:
            process.kill()


def test_jobs_run_the_store_is_private_and_survives_and_the_second_run_does_nothing(
    rig: Rig,
) -> None:
    assert rig.doit("plan").planned > TASKS
    assert not rig.layout.jobs.exists()
    run = rig.doit()
    assert run.executed > TASKS | {"workers:jobs-gpu0"}
    assert set(rig.running()) == {"comfyui-gpu0", "jobs-gpu0"}
    before = pids(rig)
    assert set(before) == set(apps.JOBS)
    job = run_job(rig)
    assert rig.doit().executed == set()
    check_privacy(rig, before[apps.JOBS_SERVER])
    os.kill(before[apps.JOBS_SERVER], signal.SIGKILL)
    until(lambda: pids(rig).get(apps.JOBS_SERVER) not in (None, before[apps.JOBS_SERVER]),
          PATIENCE, "PM2")  # fmt: skip
    until(lambda: nats_server.answers(rig.port(1)), PATIENCE, "the server")
    assert until(lambda: is_known(rig, job), PATIENCE, "the job")
    run_job(rig)
    assert rig.doit().executed == set()
    assert pids(rig) | {apps.JOBS_SERVER: 0} == before | {apps.JOBS_SERVER: 0}
    shown = json.loads(rig.doit("status", "--json").output)
    assert {name: row["process"] for name, row in shown["jobs"].items()} == pids(rig)
    assert shown["machine"]["health"] == "healthy"
    told: list[str] = []
    shutdown.end_processes(rig.layout, "down", told.append)
    assert told == [
        f"stops {name}"
        for name in ("watcher", "jobs-gpu0", "comfyui-gateway", "comfyui-scheduler",
                     "comfyui-gpu0", "comfyui-jobs", "PM2")
    ]  # fmt: skip


def check_privacy(rig: Rig, server: int) -> None:
    """Nobody else can use the server, or learn the token."""
    layout = rig.layout
    for path, mode in ((layout.jobs, 0o700), (layout.jobs_token, 0o600),
                       (layout.jobs / "nats.conf", 0o600)):  # fmt: skip
        assert stat.S_IMODE(path.stat().st_mode) == mode
    listening = [
        (each.laddr.ip, each.laddr.port)
        for each in psutil.Process(server).net_connections("tcp")
        if each.status == psutil.CONN_LISTEN
    ]
    assert listening == [("127.0.0.1", rig.port(1))]
    url = f"nats://127.0.0.1:{rig.port(1)}"
    token = layout.jobs_token.read_text().strip()
    assert nats_server.refusal(Account(url)) == "Authorization Violation"
    assert nats_server.refusal(Account(url, "guessed")) == "Authorization Violation"
    assert nats_server.refusal(Account(url, token)) is None
    files = (path for path in rig.workspace.rglob("*") if path.is_file() and not path.is_symlink())
    holding = {path for path in files if token.encode() in path.read_bytes()}
    assert holding == {layout.jobs_token, layout.jobs / "nats.conf"}
    assert token not in rig.pm2("jlist")


def test_turned_off_its_programs_end_and_the_jobs_stay_for_when_it_is_on_again(rig: Rig) -> None:
    jobs = rig.spec["jobs"]
    rig.doit()
    job, instance = run_job(rig), rig.running()["comfyui-gpu0"].pid
    rig.spec["jobs"] = False
    changed = {"pm2:gpu0", "instances:stop", "watcher", "collection"}
    assert rig.doit("plan").planned == changed
    assert rig.doit().executed == changed
    assert pids(rig) == {}
    assert set(rig.running()) == {"comfyui-gpu0"}
    assert rig.doit().executed == set()
    assert "jobs" not in json.loads(rig.doit("status", "--json").output)
    rig.spec["jobs"] = jobs
    rig.doit()
    assert until(lambda: is_known(rig, job), PATIENCE, "the job")
    assert rig.running()["comfyui-gpu0"].pid == instance
    rig.doit(ENABLE_COMFYUI="false")
    assert pids(rig) == {}
    assert rig.running() == {}
    assert (rig.layout.jobs / "store").is_dir()


def test_a_server_whose_config_was_changed_or_that_hangs_is_put_right(rig: Rig) -> None:
    rig.doit("jobs:server")
    server = pids(rig)[apps.JOBS_SERVER]
    rig.layout.jobs_token.chmod(0o644)
    assert rig.doit("jobs:server").executed == {"jobs:server"}
    assert stat.S_IMODE(rig.layout.jobs_token.stat().st_mode) == 0o600
    assert pids(rig)[apps.JOBS_SERVER] == server, "the same token: nothing restarts"
    (rig.layout.jobs / "nats.conf").write_text("listen: 0.0.0.0:4222\n")
    assert rig.doit("jobs:server").executed == {"jobs:server"}
    assert pids(rig)[apps.JOBS_SERVER] == server, "it never read that"
    rig.layout.jobs_token.unlink()
    rig.doit("jobs:server")
    changed = pids(rig)[apps.JOBS_SERVER]
    assert changed != server
    os.kill(changed, signal.SIGSTOP)
    assert rig.doit("jobs:server").executed == {"jobs:server"}
    assert nats_server.answers(rig.port(1))
    assert rig.doit("jobs:server").executed == set()


@pytest.mark.afresh
def test_a_taken_port_is_told_before_anything_is_built(rig: Rig) -> None:
    with stranger(rig.port(1)) as one, stranger(rig.port(2)) as other:
        run = rig.doit(code=2)
    assert (run.executed, run.failed) == ({"directories"}, {"ports"})
    assert f"comfyui-jobs can't start: port {rig.port(1)} is held by pid {one} (" in run.output
    assert f"comfyui-gateway can't start: port {rig.port(2)} is held by pid {other} (" in run.output
    assert "choose another jobs.gateway_port and jobs.port, or set" in run.output


def test_a_taken_port_of_a_machine_that_is_built_keeps_no_instance_away(rig: Rig) -> None:
    rig.doit("build")
    with stranger(rig.port(1)):
        run = rig.doit(code=2)
    assert run.failed == {"jobs:server"}
    assert "comfyui-jobs can't start: port" in run.output
    assert "or choose another jobs.port" in run.output
    assert rig.healthy()


def test_the_next_free_port_is_taken_and_everyone_follows(rig: Rig) -> None:
    rig.spec["instances"]["port_conflict"] = "next"
    wanted = (rig.port(1), rig.port(2))
    with stranger(wanted[0]), stranger(wanted[1]):
        run = rig.doit()
        assert f"comfyui-jobs takes port {rig.port(3)}" in run.output
        assert rig.doit().executed == set()
        settings = json.loads((rig.layout.apps / "comfyui-gateway.json").read_text())
        assert settings["url"] == f"nats://127.0.0.1:{rig.port(3)}"
        assert settings["port"] not in wanted
        rig.spec["jobs"]["gateway_port"] = settings["port"]
        run_job(rig)


def test_a_server_of_ones_own_is_tried_first_and_what_it_asks_for_stays_secret(
    rig: Rig, tmp_path: Path
) -> None:
    port = rig.port(1)
    rig.spec["jobs"] = {
        "url": f"nats://127.0.0.1:{port}",
        "credentials": "${NATS_CREDENTIALS}",
        "gateway_port": rig.port(2),
        "token": "${JOBS_TOKEN}",
        "webhook_secret": "${HOOKS}",
    }
    secrets = {"NATS_CREDENTIALS": "open-sesame", "JOBS_TOKEN": "canary-token", "HOOKS": SECRET}
    assert "the variable NATS_CREDENTIALS isn't set" in rig.doit(code=2).output
    run = rig.doit("jobs:scheduler", code=1, **secrets)
    said = f"jobs can't be kept at nats://127.0.0.1:{port}: Connection refused; correct jobs in"
    assert said in run.output
    assert run.failed == {"jobs:scheduler"}
    with nats(tmp_path, port, "--auth", "open-sesame"):
        run = rig.doit("jobs:scheduler", code=1, **secrets)
        assert "it has no JetStream: start it with --jetstream" in run.output
    with nats(tmp_path, port, "--auth", "open-sesame", "-js", "-sd", str(tmp_path / "store")):
        run = rig.doit("jobs:scheduler", code=1, **secrets | {"NATS_CREDENTIALS": "wrong"})
        assert "Authorization Violation" in run.output
        rig.doit(code=0, **secrets)
        assert set(pids(rig)) == {apps.GATEWAY, apps.SCHEDULER}
        assert not rig.layout.jobs.exists()
        assert rig.doit(code=0, **secrets).executed == set()
        gateway = Client(f"http://127.0.0.1:{rig.port(2)}")
        prompt = {"1": picture(), "2": preview("1")}
        assert gateway.post("/prompt", json={"prompt": prompt}).status_code == 401
        for each in secrets.values():
            paths = (path for path in rig.workspace.rglob("*") if path.is_file())
            holding = [path for path in paths if each.encode() in path.read_bytes()]
            assert {path.parent for path in holding} == {rig.layout.secrets}
            assert {stat.S_IMODE(path.stat().st_mode) for path in holding} == {0o600}
            assert each not in rig.pm2("jlist")
        rig.doit(code=0, **secrets | {"JOBS_TOKEN": "another"})
        names = [path.name for path in rig.layout.secrets.glob("comfyui-gateway-*")]
        assert len(names) == 1, "the older one left"


@pytest.mark.parametrize("value", ["short", "c2hvcnQ=", "whsec_hunter2", SECRET + "!"])
def test_a_secret_for_webhooks_must_be_one(rig: Rig, value: str) -> None:
    rig.spec["jobs"]["webhook_secret"] = "${HOOKS}"
    assert "the variable HOOKS isn't set" in rig.doit(code=2).output
    run = rig.doit("jobs:scheduler", code=1, HOOKS=value)
    assert "jobs.webhook_secret: ${HOOKS} is not whsec_ and 24 to 64 bytes in base64" in run.output
    assert value not in run.output
    assert apps.SCHEDULER not in pids(rig)


def test_the_keys_of_an_object_store_stay_secret_and_one_that_refuses_is_told(
    rig: Rig, tmp_path: Path
) -> None:
    secrets = {"S3_ACCESS_KEY": ACCESS_KEY, "S3_SECRET_KEY": SECRET_KEY}
    (tmp_path / "objects").mkdir()
    with (
        closing(ObjectStore(tmp_path / "objects")) as objects,
        nats(tmp_path, rig.port(1), "-js", "-sd", str(tmp_path / "store")),
    ):
        keys = {"access_key": "${S3_ACCESS_KEY}", "secret_key": "${S3_SECRET_KEY}"}
        rig.spec["jobs"] = {
            "url": f"nats://127.0.0.1:{rig.port(1)}",
            "gateway_port": rig.port(2),
            "store": {**objects.bucket("here"), **keys},
        }
        assert "the variable S3_ACCESS_KEY isn't set" in rig.doit(code=2).output
        wrong = rig.doit(S3_ACCESS_KEY=ACCESS_KEY, S3_SECRET_KEY="wrong-key").output
        assert "files of jobs can't be kept at s3://jobs-of-tests/here: it refuses" in wrong
        assert "can't be kept" not in rig.doit(code=0, **secrets).output
        assert rig.doit(code=0, **secrets).executed == set()
        job = run_job(rig)
        gateway = Client(f"http://127.0.0.1:{rig.port(2)}")
        (output,) = gateway.json(f"/api/v2/jobs/{job}")["outputs"]
        bucket = Bucket(**objects.bucket("here"))
        files = ObjectFiles(bucket, ACCESS_KEY, SECRET_KEY)
        key = f"jobs/{job}/1/{output['name']}"
        assert asyncio.run(files.find(key)).size == output["size_bytes"] > 0
        for each in secrets.values():
            paths = (path for path in rig.workspace.rglob("*") if path.is_file())
            holding = [path for path in paths if each.encode() in path.read_bytes()]
            assert {path.parent for path in holding} == {rig.layout.secrets}
            assert {stat.S_IMODE(path.stat().st_mode) for path in holding} == {0o600}
            assert {path.name.rpartition("-")[0] for path in holding} == {
                "comfyui-gateway", "jobs-gpu0",
            }  # fmt: skip
            assert each not in rig.pm2("jlist")
            for process in psutil.process_iter(["cmdline"]):
                assert each not in " ".join(process.info["cmdline"] or ())


def test_what_is_down_is_told_alike_and_started_again(rig: Rig) -> None:
    rig.spec["health"]["server"] = True
    rig.doit()
    assert machine_of(rig)["health"] == "healthy"
    rig.pm2("stop", "comfyui-gateway")
    found = until(lambda: (it := machine_of(rig))["code"] == "JobsDown" and it, PATIENCE, "health")
    assert isinstance(found, dict)
    assert (found["health"], "comfyui-gateway doesn't run: ") == ("degraded", found["reason"][:29])
    answer = Client(f"http://127.0.0.1:{rig.port(3)}").json("/health/comfyui")
    assert (answer["status"], answer["code"]) == ("degraded", "JobsDown")
    assert answer["reason"] == found["reason"]
    assert [each["running"] for each in answer["services"] if each["name"] in apps.JOBS] == [
        True, True, False,
    ]  # fmt: skip
    assert "degraded: comfyui-gateway doesn't run: " in rig.doit("probe").output
    rig.spec["health"]["server"] = False
    assert machine_of(rig)["reason"] == found["reason"], "the command judges alike"
    rig.spec["health"]["server"] = True
    assert rig.doit().executed == {"jobs:gateway"}
    assert machine_of(rig)["health"] == "healthy"


def test_the_watcher_starts_what_pm2_gave_up_and_restarts_a_server_that_hangs(rig: Rig) -> None:
    rig.doit()
    hasten(rig, hung=1)

    def kill() -> bool:
        if pid := pids(rig).get(apps.SCHEDULER):
            os.kill(pid, signal.SIGKILL)
        return "comfyui-scheduler was started again" in rig.layout.log("watcher").read_text()

    until(kill, PATIENCE, "the watcher")
    until(lambda: apps.SCHEDULER in pids(rig), PATIENCE, "the scheduler")
    server = pids(rig)[apps.JOBS_SERVER]
    os.kill(server, signal.SIGSTOP)
    until(lambda: pids(rig).get(apps.JOBS_SERVER) not in (None, server), PATIENCE, "the server")
    until(
        lambda: "it didn't answer for 1 s" in rig.layout.log("watcher").read_text(),
        PATIENCE,
        "the watcher to say so",
    )
    entry = pm2.apps(rig.layout)[apps.JOBS_SERVER]["pm2_env"]
    assert entry["status"] == "online"


def test_an_upgrade_of_ours_restarts_all_but_nats_and_no_worker_of_a_machine_without_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "machine.yaml"
    common = "workspace: ws\ncomfyui: {path: there}\ninstances: {cpu_only: true}\n"

    def fingerprints(jobs: str) -> dict[str, str]:
        file.write_text(f"{common}jobs: {jobs}\n")
        machine = load(file, {})
        run = Run(machine, machine.instances_for(1))
        found = machine.wanted_jobs
        workers = configs.workers_of(run, run.instances[0])
        digests = {each.name: each.env["JOBS_DIGEST"] for each in workers}
        if found:
            programs = [
                job_queue._program(run, found, name) for name in (apps.SCHEDULER, apps.GATEWAY)
            ]
            for each in [*programs, job_queue._server(run, found, "token")]:
                digests[each.name] = each.env[apps.FINGERPRINT]
        return digests

    assert fingerprints("false") == {}
    before = fingerprints("true")
    assert fingerprints("true") == before
    other = fingerprints("{gateway_port: 8181}")
    assert {name for name in before if before[name] != other[name]} == {apps.GATEWAY}
    other = fingerprints("{port: 4223}")
    assert {name for name in before if before[name] != other[name]} == set(before)
    monkeypatch.setattr(own_service, "code_digest", lambda: "newer")
    newer = fingerprints("true")
    assert {name for name in before if before[name] == newer[name]} == {apps.JOBS_SERVER}
