"""A machine that an older version made and that runs is taken over by the present code."""

from __future__ import annotations

import compileall
import io
import shutil
import subprocess
import sysconfig
import tarfile
import textwrap
import venv
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from comfy_machine.host.pm2 import apps
from comfy_machine.host.system import files
from comfy_machine.spec.layout import Layout
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.forge import Forge, Repository
from tests.model_server import ModelServer, model_server, safetensors
from tests.rig import PROJECT, Rig, free_ports
from tests.wheels import wheel

BEFORE = "b72e3cdff5e7c94b99bcc49c8640e7c083349ca4"
"""The version before stages and helpers moved into packages."""
CODE = ("dodo.py", "tasks", "templates", "pyproject.toml")
SERVICES = {"server", "watcher"}
"""The tasks that start our own services."""
INSTALL = """
import pathlib
pathlib.Path("installed").write_text("by install.py")
"""
WAITS = """
import pathlib, time
pathlib.Path({started!r}).touch()
while pathlib.Path({wait!r}).exists():
    time.sleep(0.05)
"""
DIES = "import os, sys\nif 'COMFYUI_PORT' in os.environ:\n    sys.exit('no luck today')\n"
"""A node that a build finds in order, and that ends an instance."""

pytestmark = pytest.mark.afresh


class Installation:
    """A folder with a version of this project and a .venv, as `git pull && make .venv` has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / ".venv", with_pip=False)
        self.python = folder / ".venv" / "bin" / "python"
        packages = next(folder.glob(".venv/lib/python*/site-packages"))
        # The dependencies are those of this Python; the project in its packages isn't found, as
        # paths in .pth files of such a folder are not followed.
        (packages / "project.pth").write_text(f"{folder}\n{sysconfig.get_path('purelib')}\n")
        self._about = packages / "comfy_machine-0.1.0.dist-info"
        self._about.mkdir()
        (self._about / "METADATA").write_text("Name: comfy-machine\nVersion: 0.1.0\n")

    def before(self) -> None:
        """The code of BEFORE. Skips the test where the history lacks it."""
        words = ["git", "archive", "--format=tar", BEFORE, *CODE]
        archive = subprocess.run(words, cwd=PROJECT, capture_output=True)
        if archive.returncode:
            pytest.skip(f"the history lacks {BEFORE[:7]}: {archive.stderr.decode().strip()}")
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            tar.extractall(self.folder)
        self._install()

    def present(self, *, installed: bool = True) -> None:
        """The code of the working tree; bytecode of the version before stays behind.

        Without `installed` the .venv still has the commands of the version before.
        """
        for name in CODE:
            for path in [self.folder / name, *(self.folder / name).rglob("*")]:
                if path.is_file() and path.suffix != ".pyc":
                    path.unlink()
            if (PROJECT / name).is_dir():
                bytecode = shutil.ignore_patterns("__pycache__")
                shutil.copytree(
                    PROJECT / name, self.folder / name, ignore=bytecode, dirs_exist_ok=True
                )
            else:
                shutil.copyfile(PROJECT / name, self.folder / name)
        (self.folder / "comfy_machine").symlink_to("tasks")
        if installed:
            self._install()

    def _install(self) -> None:
        # A health server that compiles its code on a busy machine may take too long to start.
        compileall.compile_dir(self.folder / "tasks", quiet=1)
        declared = (self.folder / "pyproject.toml").read_text()
        entries = '[project.entry-points."doit.COMMAND"]'
        commands = declared.partition(entries)[2].partition("\n[")[0]
        lines = [line.replace('"', "") for line in commands.splitlines() if " = " in line]
        (self._about / "entry_points.txt").write_text("\n".join(["[doit.COMMAND]", *lines]) + "\n")


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    found = Installation(tmp_path / "project")
    found.before()
    return found


@pytest.fixture
def models() -> Iterator[ModelServer]:
    with model_server() as server:
        server.content["/a.safetensors"] = safetensors(100_000)
        yield server


@pytest.fixture
def node(forge: Forge, tmp_path: Path) -> Repository:
    """A custom node with an install script and a requirement, at v1."""
    wheel(tmp_path / "links", "asked-for", "1.0")
    node = forge.node("scripted", {"install.py": INSTALL, "requirements.txt": "asked-for\n"})
    node.git("tag", "v1")
    return node


@pytest.fixture
def rig(
    machine: MachineMaker,
    installation: Installation,
    node: Repository,
    forge: Forge,
    models: ModelServer,
    tmp_path: Path,
) -> Rig:
    """What a machine has, one of each."""
    (tmp_path / "linked.safetensors").write_bytes(safetensors(1000))
    declared = [
        {"target": "checkpoints/a.safetensors", "url": f"{models.url}/a.safetensors"},
        {"target": "loras/b.safetensors", "source": str(tmp_path / "linked.safetensors")},
    ]
    first = free_ports(5)
    rig = machine(
        python={"torch": "none", "find_links": [str(tmp_path / "links")]},
        custom_nodes=[
            {"url": node.url, "ref": "v1"},
            {"url": forge.node("secretive").url, "env": {"TOKEN": "${TOKEN}"}},
        ],
        models={"files": declared},
        instances={"gpus": 2, "port_start": first, "env": {"HIDDEN": "${TOKEN}"}},
        health={"server": True, "port": first + 4},
        workers=[{"name": "worker", "command": ["sleep", "600"], "env": {"TOKEN": "${TOKEN}"}}],
    )
    rig.env["TOKEN"] = "a secret"
    rig.project, rig.program = installation.folder, (str(installation.python), "-m", "doit")
    return rig


def pids(rig: Rig) -> dict[str, int]:
    """Of instances and workers."""
    return {name: app.pid for name, app in rig.running().items()}


def folders(layout: Layout) -> dict[str, object]:
    """What is built: digest and inode of each environment and generation, and what is current."""
    built = [*layout.environments.iterdir(), *layout.generations.iterdir()]
    return {str(path): path.stat().st_ino for path in built} | {
        "current": layout.current.resolve(),
        "environment": (layout.current / "environment").resolve(),
    }


def update(rig: Rig, node: Repository, text: dict[str, str | None], tag: str) -> None:
    node.commit(text, tag=tag)
    rig.spec["custom_nodes"][0]["ref"] = tag


def test_nothing_that_serves_is_touched(
    rig: Rig, node: Repository, installation: Installation, models: ModelServer
) -> None:
    rig.doit()
    first = rig.comfyui
    update(rig, node, {"new.py": ""}, "v2")
    rig.doit()
    before, built = pids(rig), folders(rig.layout)
    models.forget()
    installation.present()
    restart_services(rig)

    ours = {app.pid for app in services(rig).values()}
    plan = rig.doit("plan")
    assert plan.planned == SERVICES, plan.output
    run = rig.doit()
    assert run.executed == SERVICES, run.output
    assert "!" not in run.output
    assert not ours & {app.pid for app in services(rig).values()}
    assert len(services(rig)) == len(ours) == 2
    again = rig.doit()
    assert again.executed == set(), again.output
    assert pids(rig) == before
    assert folders(rig.layout) == built
    assert models.requests == 0

    rig.doit("rollback")
    assert rig.comfyui == first
    assert rig.healthy(0)
    assert rig.healthy(1)


def test_what_the_version_before_refused_stays_refused(
    rig: Rig, node: Repository, installation: Installation
) -> None:
    small(rig)
    rig.doit()
    update(rig, node, {"prestartup_script.py": DIES}, "v2")
    rig.doit(code=2)
    before, built = pids(rig), folders(rig.layout)
    installation.present()
    run = rig.doit(code=2)
    assert run.executed == {"watcher"}, run.output
    assert run.failed == {"collection"}
    assert "was refused" in run.output
    assert (pids(rig), folders(rig.layout)) == (before, built)
    forced = rig.doit("force=1", code=2)
    assert "comfyui-gpu0 died while it started: no luck today" in forced.output, "it is tried again"


def test_an_instance_that_pm2_restarts_after_the_upgrade_serves(
    rig: Rig, installation: Installation
) -> None:
    """PM2 has the command that the version before gave it; `make .venv` was forgotten."""
    small(rig)
    rig.doit()
    installation.present(installed=False)
    before = pids(rig)
    psutil.Process(before["comfyui-gpu0"]).kill()
    until(lambda: pids(rig).get("comfyui-gpu0") not in (None, before["comfyui-gpu0"]), 30, "PM2")
    until(rig.healthy, 60, "the instance")
    restarted = pids(rig)
    run = rig.doit()
    assert run.executed == {"health:gpu0", "watcher"}
    assert "!" not in run.output
    assert pids(rig) == restarted
    assert rig.doit().executed == set()


@pytest.mark.parametrize("moment", ["in a script", "in a roll"])
def test_a_run_that_was_killed_is_completed(
    rig: Rig, node: Repository, installation: Installation, tmp_path: Path, moment: str
) -> None:
    small(rig, gpus=2)
    rig.doit()
    first, before = rig.comfyui, pids(rig)
    wait = tmp_path / "wait"
    wait.touch()
    started = tmp_path / "started"
    stops = WAITS.format(started=str(started), wait=str(wait))
    where = "install.py" if moment == "in a script" else "prestartup_script.py"
    if moment == "in a roll":
        stops = f"import os\nif 'COMFYUI_PORT' in os.environ:{textwrap.indent(stops, '    ')}"
    update(rig, node, {where: stops}, "v2")
    with rig.going() as run:
        until(started.exists, 60, "the moment")
        run.kill()
    wait.unlink()
    installation.present()
    assert "!" not in rig.doit().output
    assert rig.comfyui != first
    assert not set(pids(rig).values()) & set(before.values())
    assert rig.healthy(0)
    assert rig.healthy(1)
    assert rig.doit().executed == set()


def restart_services(rig: Rig) -> None:
    """They end, and PM2 starts the new code on settings of the version before."""
    before = {name: app.pid for name, app in services(rig).items()}
    for pid in before.values():
        psutil.Process(pid).kill()
    for name, pid in before.items():
        ready = rig.layout.apps / f"{name}.ready.json"
        until(lambda ready=ready, pid=pid: _pid(ready) not in (0, pid), 60, name)  # type: ignore[misc]
    assert {name: app.pid for name, app in services(rig).items()} == {
        name: _pid(rig.layout.apps / f"{name}.ready.json") for name in before
    }


def services(rig: Rig) -> dict[str, apps.App]:
    """The health server and the watcher."""
    return {app.name: app for app in (rig.server(), rig.watcher()) if app}


def _pid(ready: Path) -> int:
    """Who wrote down that it is ready."""
    return int(files.read_receipt(ready).get("pid", 0))


def small(rig: Rig, gpus: int = 1) -> None:
    """Leave out what a test is not about."""
    rig.spec["instances"]["gpus"] = gpus
    rig.spec["health"] = {"server": False}
    del rig.spec["workers"], rig.spec["models"]
