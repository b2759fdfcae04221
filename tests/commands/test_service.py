"""doit service: the unit's commands really run, by hand and by a systemd of the test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from comfy_machine.host.pm2 import pm2
from comfy_machine.host.system import private_folder, systemd
from comfy_machine.host.system.program_files import SERVICES
from comfy_machine.host.system.run_lock import RunLock
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.host.system.test_systemd import command, value
from tests.rig import DOIT, PROJECT, Rig, snapshot

NAMESPACE = ["unshare", "--mount", "--propagation", "private"]
BARE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
"""What systemd gives a service of the system, besides HOME."""

MANAGER = """
mount -t tmpfs none /run && mkdir -p /run/systemd/system /run/user/0 && ls -l / > /dev/null
exec /lib/systemd/systemd --user
"""


def shown(rig: Rig) -> str:
    """The unit that doit would install."""
    return rig.doit("service", "--print").output


def bare(rig: Rig, words: list[str], code: int = 0, **env: str) -> str:
    """Run a unit's command as systemd would, in the folder that the unit names."""
    ended = subprocess.run(
        words,
        cwd=value(shown(rig), "WorkingDirectory"),
        env=BARE | {"HOME": str(rig.folder)} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert ended.returncode == code, ended.stdout
    return ended.stdout


def test_the_units_commands_bring_the_machine_up_and_down_with_a_bare_environment(
    machine: MachineMaker,
) -> None:
    rig = machine('50% of $HOME "it\'s"', instances={"env": {"KEY": "${SERVICE_CANARY}"}})
    (rig.folder / ".env.local").write_text("SERVICE_CANARY=canary-5\n")
    rig.doit("build")
    unit = shown(rig)
    assert "canary-5" not in unit
    start, stop, post = (
        command(value(unit, key)) for key in ("ExecStart", "ExecStop", "ExecStopPost")
    )

    bare(rig, start)
    pid = rig.running()["comfyui-gpu0"].pid
    assert psutil.Process(pid).environ()["KEY"] == "canary-5"
    assert rig.doit("status").code == 0, "every shell sees the PM2 that systemd started"
    bare(rig, start)
    bare(rig, post, SERVICE_RESULT="exit-code")
    assert rig.running()["comfyui-gpu0"].pid == pid, "a failure of the unit's ends nothing"

    assert "1 stopped" in bare(rig, stop)
    assert (rig.running(), pm2.daemon(rig.layout)) == ({}, None)
    assert "nothing was running" in bare(rig, post, SERVICE_RESULT="success")


def test_a_start_that_fails_is_tried_again_and_ends_with_its_child_when_stopped(
    tmp_path: Path,
) -> None:
    script = tmp_path / "doit"
    script.write_text(
        f"#!{sys.executable}\nimport pathlib, time\nhere = pathlib.Path({str(tmp_path)!r})\n"
        "tries = len(list(here.glob('try*'))) + 1\n(here / f'try{tries}').touch()\n"
        "time.sleep(600 if tries > 2 else 0)\nraise SystemExit(2)\n"
    )
    script.chmod(0o755)
    boot_file = str(SERVICES / "boot.py")
    quick = f"import runpy, sys; m = runpy.run_path({boot_file!r}); m['main'].__globals__.update(" \
            f"FIRST=0.1); sys.exit(m['main']([{str(script)!r}]))"  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", quick], stdout=subprocess.PIPE) as boot:
        try:
            until((tmp_path / "try3").exists, 20, "the third try")
            (child,) = psutil.Process(boot.pid).children()
            boot.terminate()
            assert boot.wait(20) == 0
            assert not child.is_running()
        finally:
            boot.kill()
        assert boot.stdout is not None
        assert b"doit ended with code 2; trying again in 0.2 s" in boot.stdout.read()


def test_print_changes_nothing_and_needs_no_systemd(machine: MachineMaker) -> None:
    rig = machine()
    rig.write()
    before = snapshot(rig.folder)
    unit = rig.doit("service", "--print", PATH=os.devnull).output
    assert f"machine={rig.file}" in unit
    assert str(DOIT) in unit
    assert snapshot(rig.folder) == before
    assert not private_folder.folder(rig.workspace).exists()


def test_without_systemd_one_line_says_so(machine: MachineMaker, tmp_path: Path) -> None:
    rig = machine()
    said = rig.doit("service", code=1, PATH=str(tmp_path)).output
    assert said.startswith("service: no systemd ")
    assert len(said.splitlines()) == 1
    assert not (systemd.manager().folder / systemd.unit_name(rig.file)).exists()


def test_while_a_run_is_on_nothing_is_installed(machine: MachineMaker) -> None:
    rig = machine()
    holder = (
        "import sys; from pathlib import Path; "
        "from comfy_machine.host.system.run_lock import RunLock; "
        f"lock = RunLock(Path({str(rig.workspace)!r})); lock.take('models'); "
        "print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        for option in ([], ["--remove"]):
            said = rig.doit("service", *option, code=2).output
            assert (
                f"another doit run is in progress in {rig.workspace} (pid {run.pid}, models)"
                in said
            )
        run.communicate()


class Systemd:
    """A manager of units like a user's, in a mount namespace where nothing else sees it."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "config"
        self.env = {**BARE, "HOME": str(folder), "XDG_CONFIG_HOME": str(self.config),
                    "XDG_RUNTIME_DIR": "/run/user/0"}  # fmt: skip
        self.process = psutil.Popen([*NAMESPACE, "sh", "-c", MANAGER], env=self.env)

    def run(self, *words: object, code: int | None = 0) -> str:
        """Run a command where the manager is."""
        ended = subprocess.run(
            ["nsenter", "--mount", "--target", str(self.process.pid), *map(str, words)],
            env=self.env,
            cwd=PROJECT,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert code is None or ended.returncode == code, ended.stdout
        return ended.stdout.strip()

    def runs(self) -> bool:
        return self.run("systemctl", "--user", "is-system-running", code=None) == "running"

    def state(self, name: str) -> str:
        return self.run("systemctl", "--user", "show", "--value", "-p", "ActiveState", name)


@pytest.fixture
def own_systemd(tmp_path: Path) -> Iterator[Systemd]:
    if os.geteuid() or not shutil.which("nsenter") or not Path("/lib/systemd/systemd").exists():
        pytest.skip("no systemd can be run here")
    own = Systemd(tmp_path)
    try:
        try:
            until(own.runs, 10, "a systemd of our own")
        except AssertionError:
            pytest.skip("no systemd runs in a mount namespace here")
        yield own
    finally:
        own.process.terminate()
        own.process.wait(30)


INSTALLER = """
import os, sys
from pathlib import Path
from comfy_machine.commands import service
from comfy_machine.engine.run import Run
from comfy_machine.host.system import systemd
from comfy_machine.spec import load
machine = load(Path(sys.argv[2]), os.environ)
at = systemd.Manager(Path(os.environ["XDG_CONFIG_HOME"]) / "systemd" / "user", user=True)
name = systemd.unit_name(machine.file)
if sys.argv[1] == "install":
    print(systemd.install(at, name, service.unit(Run(machine), user_unit=True)))
else:
    print(systemd.remove(at, name))
"""


def test_a_real_systemd_starts_holds_and_stops_the_machine(
    machine: MachineMaker, own_systemd: Systemd
) -> None:
    rig = machine("a $HOME of 50%", instances={"gpus": 2})
    rig.doit("build")
    name = systemd.unit_name(rig.file)

    def service(what: str) -> str:
        return own_systemd.run(sys.executable, "-c", INSTALLER, what, rig.file)

    def main_process() -> int:
        return int(own_systemd.run("systemctl", "--user", "show", "--value", "-p", "MainPID", name))

    assert service("install") == "True"
    until(lambda: own_systemd.state(name) == "active", 60, "the unit")
    assert rig.healthy(0)
    running = rig.running()
    assert service("install") == "False"
    assert rig.running() == running
    own_systemd.run("systemctl", "--user", "stop", name)
    assert (rig.running(), pm2.daemon(rig.layout)) == ({}, None)

    rig.spec["instances"]["overrides"] = {1: {"args": ["no-such-argument"]}}
    rig.write()
    own_systemd.run("systemctl", "--user", "start", "--no-block", name)
    until(lambda: rig.healthy(0), 60, "the instance that can start")
    kept = rig.running()["comfyui-gpu0"].pid
    boot = main_process()
    assert boot
    psutil.Process(boot).kill()
    until(lambda: main_process() not in (0, boot), 60, "systemd to start it again")
    assert rig.running()["comfyui-gpu0"].pid == kept, "a failed start ends no healthy instance"
    until(lambda: RunLock(rig.workspace).run() is None, 60, "the end of the run it left")
    own_systemd.run("systemctl", "--user", "stop", name)
    assert (rig.running(), pm2.daemon(rig.layout)) == ({}, None)

    own_systemd.run("systemctl", "--user", "start", "--no-block", name)
    until(lambda: rig.healthy(0), 60, "the instance that can start")
    assert service("remove") == "True"
    assert rig.healthy(0), "what runs goes on running"
    assert list(own_systemd.config.rglob("*.service")) == []
    assert service("remove") == "False"
