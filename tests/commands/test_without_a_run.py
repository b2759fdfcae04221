"""Commands where nothing was ever built, and where machine.yaml is wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
import yaml

from comfy_machine.host.pm2 import apps, stops
from comfy_machine.host.system import files, private_folder, process
from comfy_machine.host.system.run_lock import RunLock
from tests.rig import DOIT, PROJECT, SIMULATOR, Rig, free_ports

PLUGINS = (PROJECT / "pyproject.toml").read_text().partition("[tool.doit.plugins.command]")[2]
COMMANDS = re.findall(r'^(\w+) = "comfy_machine', PLUGINS.partition("\n[")[0], re.M)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A machine file; nothing is installed and nothing runs."""
    instances = {"gpus": 2, "cpu_only": True, "port_start": free_ports(4)}
    yield Rig(
        tmp_path,
        {
            "workspace": "ws",
            "comfyui": {"path": str(SIMULATOR)},
            "python": {"torch": "none"},
            "instances": instances,
        },
    )
    files.remove(private_folder.folder(tmp_path / "ws"))


def test_status_says_that_nothing_runs(rig: Rig) -> None:
    shown = rig.doit("status", code=1, COLUMNS="200").output
    for gpu in (0, 1):
        row = next(line for line in shown.splitlines() if f"comfyui-gpu{gpu}" in line)
        assert row.split() == [
            f"comfyui-gpu{gpu}", str(gpu), "–", str(rig.port(gpu)), "–", "–", "–", "–", "down",
            "not", "started",
        ]  # fmt: skip


def test_status_for_programs_has_the_instances_by_gpu(rig: Rig) -> None:
    shown = json.loads(rig.doit("status", "--json", code=1).output)
    assert set(shown["instances"]) == {"0", "1"}
    row = shown["instances"]["1"]
    assert row["instance"] == "comfyui-gpu1"
    assert (row["gpu"], row["port"], row["pid"]) == (1, rig.port(1), None)
    assert row["health"] == "down"


def test_status_has_the_line_to_blame_of_an_instance_that_died(rig: Rig) -> None:
    files.write_text(rig.layout.log("comfyui-gpu0"), "loading\nRuntimeError: no luck\n\n")
    files.write_text(rig.layout.log("comfyui-gpu1"), "loading\nRuntimeError: no luck\n")
    rig.layout.state.mkdir(parents=True, exist_ok=True)
    stops.note(rig.layout, {"comfyui-gpu1": 0}, "down")
    shown = json.loads(rig.doit("status", "--json", code=1).output)["instances"]
    assert shown["0"]["reason"] == "it ended: comfyui-gpu0.log:2: RuntimeError: no luck"
    assert shown["1"]["reason"] == "stopped"


def test_status_can_be_asked_with_a_damaged_lock_file_and_receipts(rig: Rig) -> None:
    rig.lock_file.write_text("<<<<<<< HEAD\n")
    files.write_text(rig.layout.watched(0), "[5]")
    files.write_text(rig.layout.watched(1), '{"restarted": "stuck", "at": "never", "pid": null}')
    (private_folder.make(rig.workspace) / "run.lock").write_text("nonsense")
    files.write_text(private_folder.folder(rig.workspace) / "rpc.sock", "")
    shown = json.loads(rig.doit("status", "--json", code=1).output)
    assert shown["run"] is None
    rows = shown["instances"]
    assert [rows[gpu]["health"] for gpu in "01"] == ["down", "down"]
    assert [rows[gpu]["note"] for gpu in "01"] == ["", ""]


def test_status_tells_of_the_run_that_is_on(rig: Rig) -> None:
    lock = RunLock(rig.workspace)
    lock.take("models nodes:alpha")
    said = rig.doit("status", code=1).output
    assert f"a run is in progress: pid {os.getpid()}, models nodes:alpha" in said
    shown = json.loads(rig.doit("status", "--json", code=1).output)
    assert shown["run"] == {"process": os.getpid(), "task": "models nodes:alpha"}
    tasks: dict[str, dict[str, Any]] = {
        "environment": {"seconds": 1, "percent": 40.2, "state": "running"},
        "build": {"after": ["environment"]},
    }
    journal = {
        "pid": os.getpid(), "run": process.run_id(), "command": "up", "state": "running",
        "began": time.time() - 60, "noted": 0,
        "tasks": [{"name": name, "doc": "", **more} for name, more in tasks.items()],
    }  # fmt: skip
    files.write_receipt(rig.layout.progress("run"), journal)
    files.write_receipt(rig.layout.progress("times"), {"build": 118.0})
    said = rig.doit("status", code=1).output
    line = f"a run is in progress: pid {os.getpid()}, environment (40 %), about "
    assert re.search(rf"^{re.escape(line)}(1m \d+s|2m 0s) left$", said, re.M)
    shown = json.loads(rig.doit("status", "--json", code=1).output)["run"]
    assert (shown["process"], shown["task"]) == (os.getpid(), "environment")
    assert (shown["state"], shown["done"], shown["total"]) == ("running", 0, 2)
    assert round(shown["seconds_left"]) == 119
    lock.give_back()
    files.write_receipt(rig.layout.progress("run"), journal | {"state": "succeeded"})
    said = rig.doit("status", code=1).output
    assert "is in progress" not in said
    assert "the last run" not in said


def test_a_machine_without_instances_is_not_down(rig: Rig) -> None:
    shown = rig.doit("status", ENABLE_COMFYUI="false")
    assert "no instances" in shown.output


def test_looking_makes_no_file(rig: Rig) -> None:
    rig.doit("status", code=1)
    rig.doit("logs", code=1)
    assert [path.name for path in rig.folder.iterdir()] == ["machine.yaml"]
    assert not private_folder.folder(rig.workspace).exists()


def test_smoke_says_why_for_every_instance(rig: Rig) -> None:
    said = rig.doit("smoke", code=1).output
    for gpu in (0, 1):
        assert f"✗ comfyui-gpu{gpu}: it doesn't run: run doit" in said
    assert "Traceback" not in said


def test_smoke_without_instances_is_a_failure(rig: Rig) -> None:
    said = rig.doit("smoke", code=1, ENABLE_COMFYUI="false").output
    assert "there are no instances" in said


def test_down_where_nothing_runs_is_fine_every_time(rig: Rig) -> None:
    assert "nothing was running" in rig.doit("down").output
    assert "nothing was running" in rig.doit("down").output


def test_logs_shows_the_end_of_what_is_asked_for(rig: Rig) -> None:
    files.write_text(rig.layout.log("comfyui-gpu0"), "".join(f"line {n}\n" for n in range(99)))
    files.write_text(rig.layout.log("nodes:alpha"), "\x1b[32mclo\x1b[0mned\n")
    said = rig.doit("logs", "-n", "2", "comfyui-gpu0", "nodes:alpha").output
    assert said.splitlines() == [
        f"==> {rig.layout.log('comfyui-gpu0')}", "line 97", "line 98",
        f"==> {rig.layout.logs / 'nodes.alpha.log'}", "cloned",
    ]  # fmt: skip


def test_logs_of_what_has_none_names_those_that_are_there(rig: Rig) -> None:
    said = rig.doit("logs", "comfyui-gpu7", code=1).output
    assert "no log 'comfyui-gpu7'; known: none" in said
    files.write_text(rig.layout.log("source"), "words")
    files.write_text(rig.layout.log(apps.WATCHER), "")
    said = rig.doit("logs", "../../secret", code=1).output
    assert f"known: source, {apps.WATCHER}" in said
    assert "Traceback" not in said


def test_logs_of_everything_are_those_of_instances_and_workers_that_are_there(rig: Rig) -> None:
    rig.spec["workers"] = [{"name": "fetch", "command": ["sleep", "1"]}]
    for name in ("comfyui-gpu0", "fetch-gpu0", "comfyui-gpu1", "source"):
        files.write_text(rig.layout.log(name), f"{name}'s\n")
    said = rig.doit("logs").output.splitlines()
    assert said[1::2] == ["comfyui-gpu0's", "fetch-gpu0's", "comfyui-gpu1's"]


def test_logs_shows_as_many_lines_as_it_is_told(rig: Rig) -> None:
    text = "".join(f"{n} {'x' * 500}\n" for n in range(3000))
    files.write_text(rig.layout.log("comfyui-gpu0"), text)
    for number in (0, 1, 2500):
        said = rig.doit("logs", f"--lines={number}", "comfyui-gpu0").output
        assert len([line for line in said.splitlines() if "xxx" in line]) == number
    assert "-n takes a number of lines" in rig.doit("logs", "-n", "-3", code=1).output


def test_logs_follow_what_comes_also_in_a_file_made_anew(rig: Rig) -> None:
    log, late = rig.layout.log("comfyui-gpu0"), rig.layout.log("comfyui-gpu1")
    files.write_text(log, "old\nlast\n")
    with subprocess.Popen(
        rig.command("logs", "-f", "-n", "1"), stdout=subprocess.PIPE, text=True, cwd=PROJECT
    ) as follow:
        try:
            assert follow.stdout is not None
            seen: list[str] = []

            def read_to(text: str) -> None:
                assert follow.stdout is not None
                for line in follow.stdout:
                    seen.append(line)
                    if text in line:
                        return

            read_to("last")
            assert psutil.Process(follow.pid).name() == "tail", "the same process"
            with log.open("a") as file:
                file.write("more\n")
            read_to("more")
            log.rename(log.with_suffix(".1"))
            files.write_text(log, "anew\n")
            read_to("anew")
            files.write_text(late, "begins\n")
            read_to("begins")
            assert "old\n" not in seen
            follow.send_signal(signal.SIGINT)
            assert follow.wait(10) in (-signal.SIGINT, 128 + signal.SIGINT)
        finally:
            follow.kill()
    assert "no log 'nope'" in rig.doit("logs", "-f", "nope", code=1).output


def test_schema_is_valid_and_accepts_our_machine_files(rig: Rig) -> None:
    schema: dict[str, Any] = json.loads(rig.doit("schema").output)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for file in (PROJECT / "machine.yaml", SIMULATOR.parent / "machine.yaml"):
        assert [e.message for e in validator.iter_errors(yaml.safe_load(file.read_text()))] == []
    assert not validator.is_valid({"workspace": "w", "comfyui": {}, "nodes": []})


NEEDS_NONE = ("adopt", "completion", "help", "import", "init", "schema")
NEEDS_A_MACHINE = [name for name in COMMANDS if name not in NEEDS_NONE]


@pytest.mark.parametrize("command", [*NEEDS_A_MACHINE, "up"])
def test_a_wrong_machine_file_is_refused_with_every_problem_and_no_traceback(
    rig: Rig, command: str
) -> None:
    rig.spec |= {"comfyui": {"rref": "x"}, "instances": {"gpus": "many"}}
    arguments = [command, "source"] if command == "info" else [command]
    refused = rig.doit(*arguments, code=3)
    assert "Traceback" not in refused.output
    assert "comfyui.rref" in refused.output
    assert "instances.gpus" in refused.output
    assert [path.name for path in rig.folder.iterdir()] == ["machine.yaml"]


@pytest.mark.parametrize("command", ["status", "list"])
def test_a_machine_file_that_is_not_there_is_named(tmp_path: Path, command: str) -> None:
    ended = subprocess.run(
        [str(DOIT), command, f"machine={tmp_path / 'nope.yaml'}"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 3
    assert "nope.yaml" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_a_reason_in_brackets_is_shown_as_it_is(rig: Rig) -> None:
    files.write_text(rig.layout.log("comfyui-gpu0"), "[/opt/x] broke\n")
    files.write_text(rig.layout.log("comfyui-gpu1"), "[error] no luck\n")
    said = rig.doit("status", code=1, COLUMNS="200").output
    assert "Traceback" not in said
    assert "[/opt/x] broke" in said
    assert "[error] no luck" in said


def test_a_variable_that_nobody_reads_is_refused(rig: Rig) -> None:
    said = rig.doit("list", "machin=x", code=3).output
    assert "unknown variable 'machin'" in said
    said = rig.doit("NUM_GPUS=1", code=3).output
    assert "an environment variable goes before the command: NUM_GPUS=1 doit" in said


@pytest.mark.parametrize("command", ["status", "verify", "down"])
def test_a_command_without_names_refuses_one(rig: Rig, command: str) -> None:
    assert f"{command} takes no names: nope" in rig.doit(command, "nope", code=3).output


def test_status_loads_nothing_that_takes_long(rig: Rig) -> None:
    rig.program = (sys.executable, "-X", "importtime", str(DOIT))
    timings = rig.doit("status", code=1).output
    loaded = set(re.findall(r"^import time:[ \d|]+ (\S+)$", timings, re.M))
    assert {"comfy_machine.host.comfyui.machine_state", "psutil"} <= loaded
    assert not {"requests", "rich", "git", "jinja2", "pynvml", "fastapi", "asyncio"} & loaded


def test_options_may_follow_names(rig: Rig) -> None:
    assert rig.doit("list", "models", "--quiet").output.split() == ["models"]
    wrong = rig.doit("list", "models", "--quieter", code=3)
    assert "--quieter" in wrong.output
    assert rig.doit("logs", "--lines=1", "--", "--quiet", code=1).output.count("--quiet")
