"""Instances under the real PM2: each its own, started, replaced, ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import psutil

from comfy_machine import watcher
from comfy_machine.host.pm2 import apps, pm2
from comfy_machine.host.system import private_folder
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.forge import Forge
from tests.rig import Rig, free_ports


def environment_of(pid: int) -> dict[str, str]:
    return psutil.Process(pid).environ()


def test_each_instance_has_its_own_folders_port_and_device(machine: MachineMaker) -> None:
    rig = machine(instances={"gpus": 2})
    rig.doit()
    running = rig.running()
    assert set(running) == {"comfyui-gpu0", "comfyui-gpu1"}
    for gpu in (0, 1):
        process = psutil.Process(running[f"comfyui-gpu{gpu}"].pid)
        argv, env = process.cmdline(), process.environ()
        assert argv[argv.index("--port") + 1] == str(rig.port(gpu))
        home = str(rig.layout.instance(gpu))
        (database,) = rig.layout.databases(gpu).glob("*.db")
        assert argv[argv.index("--output-directory") + 1] == str(rig.layout.outputs(gpu))
        assert argv[argv.index("--temp-directory") + 1] == home
        assert argv[argv.index("--user-directory") + 1] == f"{home}/user"
        assert argv[argv.index("--database-url") + 1] == f"sqlite:///{database}"
        assert argv[argv.index("--input-directory") + 1] == str(rig.layout.inputs)
        assert env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
        assert env["COMFYUI_PORT"] == str(rig.port(gpu))
        assert database.is_file()
        assert "python" in Path(argv[0]).name
        assert process.cwd() == str(rig.comfyui)


def test_nothing_of_the_callers_environment_reaches_an_instance(machine: MachineMaker) -> None:
    rig = machine(instances={"env": {"NAMED": "yes"}})
    rig.doit(SOME_SECRET="canary", PYTHONDONTWRITEBYTECODE="1", LD_LIBRARY_PATH="/opt/lib")
    env = environment_of(rig.running()["comfyui-gpu0"].pid)
    assert "SOME_SECRET" not in env
    assert "PYTHONDONTWRITEBYTECODE" not in env
    assert env["NAMED"] == "yes"
    assert env["LD_LIBRARY_PATH"] == "/opt/lib"


def test_what_is_locked_is_kept_from_pip_and_uv_in_the_proof_and_in_instances(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("six<1.16\n")
    code = (
        "import os, subprocess, sys\n"
        "argv = [sys.executable, '-m', 'pip', 'install', '--dry-run', 'idna==2.0']\n"
        "ended = subprocess.run(argv, capture_output=True, text=True)\n"
        "with open(os.path.join(os.path.dirname(__file__), 'said.txt'), 'a') as said:\n"
        "    said.write(ended.stdout + ended.stderr)\n"
        "NODE_CLASS_MAPPINGS = {}\n"
    )
    node = forge.repository("alpha", {"__init__.py": code})
    rig = machine(
        custom_nodes=[{"url": node.url}], instances={"env": {"PIP_CONSTRAINT": str(mine)}}
    )
    rig.doit()
    env = environment_of(rig.running()["comfyui-gpu0"].pid)
    ours = f"{rig.layout.current.resolve()}/environment/constraints.txt"
    assert env["PIP_CONSTRAINT"] == f"{mine} {ours}"
    assert env["UV_CONSTRAINT"] == ours
    assert env["UV_LINK_MODE"] == "copy"
    said = (rig.comfyui / "custom_nodes" / "alpha" / "said.txt").read_text()
    refusal = f"The user requested (constraint) idna=={rig.packages()['idna']}"
    assert said.count(refusal) == 2, "by the proof and by the instance"


def test_a_killed_instance_comes_back_by_itself(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit()
    first = rig.running()["comfyui-gpu0"].pid
    os.kill(first, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while "comfyui-gpu0" not in rig.running() or not rig.healthy():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert rig.running()["comfyui-gpu0"].pid != first


def test_fewer_gpus_end_the_instances_beyond_and_leave_the_others(machine: MachineMaker) -> None:
    rig = machine(instances={"gpus": 2, "share_memory": False})
    rig.doit()
    first = rig.running()["comfyui-gpu0"].pid
    rig.spec["instances"]["gpus"] = 1
    assert rig.doit().executed == {"instances:stop", "watcher", "collection"}
    assert {name: app.pid for name, app in rig.running().items()} == {"comfyui-gpu0": first}
    assert set(pm2.apps(rig.layout)) == {"comfyui-gpu0", watcher.NAME}


def test_fewer_instances_have_a_larger_part_of_the_memory_each(machine: MachineMaker) -> None:
    rig = machine(instances={"gpus": 2})
    rig.doit()
    assert rig.config()[0]["env"][apps.MEMORY].split()[0] == "2"
    rig.spec["instances"]["gpus"] = 1
    assert "instances:start" in rig.doit().executed
    assert rig.config()[0]["env"][apps.MEMORY].split()[0] == "1"


def test_ports_that_move_into_each_other_end_well(machine: MachineMaker) -> None:
    rig = machine(instances={"gpus": 2})
    rig.doit()
    rig.spec["instances"]["port_start"] += 1
    rig.doit()
    assert rig.healthy(0)
    assert rig.healthy(1)


def test_a_killed_daemon_is_mended_without_duplicates(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit()
    rig.kill_daemon()
    run = rig.doit()
    assert {"instances:stop", "instances:start", "health:gpu0"} <= run.executed
    assert len(marked(rig)) == 1
    assert rig.doit().executed == set()


def marked(rig: Rig) -> list[int]:
    from comfy_machine.host.pm2 import apps

    running = apps.running(rig.workspace, pm2.daemon(rig.layout))
    return [app.pid for app in running if app.name != watcher.NAME]


def test_switched_off_by_the_environment_everything_is_ended(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit()
    rig.doit(ENABLE_COMFYUI="false")
    assert rig.running() == {}
    rig.doit()
    assert rig.healthy()


def test_the_environment_says_how_many_and_where(machine: MachineMaker) -> None:
    rig = machine()
    port = rig.port() + 2
    rig.doit(NUM_GPUS="2", COMFYUI_PORT_START=str(port))
    ports = {name: environment_of(app.pid)["COMFYUI_PORT"] for name, app in rig.running().items()}
    assert ports == {"comfyui-gpu0": str(port), "comfyui-gpu1": str(port + 1)}


def test_a_workspace_with_spaces_and_shell_signs_works(machine: MachineMaker) -> None:
    rig = machine(name="my $(touch pwned) machine's «dir»")
    rig.doit()
    assert rig.healthy()
    assert rig.doit().executed == set()


def test_a_workspace_reached_through_a_link_is_the_same_workspace(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit()
    link = rig.folder.with_name("link")
    link.symlink_to(rig.folder)
    through = Rig(link, rig.spec, rig.env)
    assert through.doit().executed == set()
    assert through.doit("down").output == "1 stopped\n"
    assert rig.running() == {}


def test_pm2_cleaned_away_from_under_us_is_mended_without_duplicates(
    machine: MachineMaker,
) -> None:
    rig = machine()
    rig.doit()
    home = private_folder.folder(rig.workspace)
    for path in home.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    daemon = pm2.daemon(rig.layout)
    assert daemon
    rig.spec["instances"]["args"] = ["--preview-method", "none"]
    rig.doit()
    assert pm2.daemon(rig.layout) not in (None, daemon)
    assert len(marked(rig)) == 1
    assert rig.doit().executed == set()
    rig.doit("down")
    assert marked(rig) == []


def test_running_everything_anew_restarts_our_own(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit()
    rig.doit("--always-execute")
    assert rig.healthy()


def test_what_was_stopped_on_purpose_is_told_from_what_ended(machine: MachineMaker) -> None:
    rig = machine(workers=[{"name": "helper", "command": ["sleep", "3000"]}])
    rig.doit()
    rig.doit("down")
    shown = json.loads(rig.doit("status", "--json", code=1).output)
    assert shown["instances"]["0"]["reason"] == "stopped by doit down"
    assert shown["workers"]["helper-gpu0"]["reason"] == "stopped by doit down"
    rig.doit()
    rig.kill_daemon()
    process = psutil.Process(rig.running()["comfyui-gpu0"].pid)
    process.kill()
    assert apps.ends(process, 10)
    shown = json.loads(rig.doit("status", "--json", code=1).output)
    assert shown["instances"]["0"]["health"] == "down"
    assert "stopped" not in shown["instances"]["0"]["reason"]


HELPERS = """
import os, subprocess, sys
code = "import time; time.sleep(3000)"
os.system(f"nohup {sys.executable} -c '{code}' {os.getpid()} nohup >/dev/null 2>&1 &")
os.system(f"env -i nohup {sys.executable} -c '{code}' {os.getpid()} nobodys >/dev/null 2>&1 &")
command = [sys.executable, "-c", code, str(os.getpid()), "session"]
subprocess.Popen(command, start_new_session=True)
NODE_CLASS_MAPPINGS = {}
"""


def helpers_of(pid: int) -> dict[str, psutil.Process]:
    """What a process's custom node left running, by its last argument."""
    found = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if command[-2:-1] == [str(pid)] and apps.runs(process):
                found[command[-1]] = process
    return found


def test_a_helper_process_belongs_to_its_instance_and_goes_with_it(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine(custom_nodes=[{"url": forge.repository("pack", {"__init__.py": HELPERS}).url}])
    rig.doit()
    every = {"nohup", "nobodys", "session"}

    def start_them() -> int:
        pid = rig.running()["comfyui-gpu0"].pid
        until(lambda: helpers_of(pid).keys() == every, 30, "its helpers")
        return pid

    first = start_them()
    assert list(rig.running()) == ["comfyui-gpu0"], "none of them is taken for it"
    assert rig.doit().executed == set()
    psutil.Process(first).kill()
    until(lambda: "comfyui-gpu0" in rig.running() and rig.healthy(), 30, "PM2 to start it again")
    # What hides from everybody is ended by the watcher, once it has seen it.
    assert helpers_of(first).keys() <= {"nobodys"}
    apps.end_all(list(helpers_of(first).values()))
    second = start_them()
    rig.doit("restart", "comfyui-gpu0")
    assert not helpers_of(second)
    third = start_them()
    rig.doit("down")
    assert not helpers_of(third)


FIXED = """
import http.server as h, threading
server = h.ThreadingHTTPServer(("127.0.0.1", {port}), h.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
NODE_CLASS_MAPPINGS = {{}}
"""


def test_of_several_instances_those_that_cannot_have_a_fixed_port_are_told_with_the_way_out(
    machine: MachineMaker, forge: Forge
) -> None:
    port = free_ports(1)
    pack = forge.repository("fixed", {"__init__.py": FIXED.format(port=port)})
    rig = machine(custom_nodes=[{"url": pack.url}], instances={"gpus": 2})
    said = rig.doit(code=2).output
    assert re.search(
        r"comfyui-gpu[01]: custom node fixed doesn't import: OSError: \[Errno 98\] Address "
        rf"already in use \(port {port} is taken, and only one instance can have it: "
        r".* instances\.overrides\), or run one instance\)",
        said,
    )
    rig.spec["instances"]["gpus"] = 1
    rig.doit()
