"""The wheel, as somebody installs it: nothing of the clone is there, and no variable is set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from email import message_from_string
from pathlib import Path

import psutil
import pytest

from comfy_machine import __version__
from comfy_machine.host.pm2 import apps
from comfy_machine.host.system import locks
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.host.system.test_systemd import command, value
from tests.rig import PROJECT, Rig, free_ports

UV = Path(sys.executable).parent / "uv"
PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel and what it requires, and nothing else."""

    wheel: Path
    folder: Path

    @property
    def program(self) -> Path:
        return self.folder / "bin" / "comfy-machine"

    @property
    def package(self) -> Path:
        (found,) = self.folder.glob("lib/python*/site-packages/comfy_machine")
        return found


@pytest.fixture(scope="session")
def installed(shared_folder: Path) -> Installed:
    """Built and installed once for all test processes."""
    folder = shared_folder / "wheel"
    with locks.exclusive(shared_folder / "wheel.lock"):
        if not (folder / "done").exists():
            build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
            _run([*build, "--directory", str(folder)], PROJECT)
            (wheel,) = folder.glob("*.whl")
            _run([str(UV), "venv", "--python", sys.executable, str(folder / "venv")], PROJECT)
            install = [str(UV), "pip", "install", "--python", str(folder / "venv" / "bin/python")]
            words = [*install, "--constraint", str(PROJECT / "requirements.lock"), str(wheel)]
            _run(words, PROJECT)
            (folder / "done").touch()
    (wheel,) = folder.glob("*.whl")
    return Installed(wheel, folder / "venv")


def _run(words: list[str], folder: Path) -> None:
    ended = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=170)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def bare(
    words: list[str], folder: Path, env: Mapping[str, str] | None = None, code: int = 0
) -> str:
    """Run a command as in a fresh login: with PATH, HOME, and where the package cache is."""
    ended = subprocess.run(
        words,
        cwd=folder,
        env={"PATH": PATH, "HOME": str(folder), "LC_ALL": "C.UTF-8", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=150,
    )
    assert ended.returncode == code, ended.stdout
    return ended.stdout


@pytest.fixture
def here(machine: MachineMaker) -> Rig:
    """A folder of its own with a machine.yaml of the simulator, health server included."""
    rig = machine(health={"server": True, "port": free_ports(1)})
    rig.write()
    return rig


def test_it_has_one_package_with_all_that_the_program_needs(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        names = set(archive.namelist())
    assert installed.wheel.name.startswith(f"comfy_machine-{__version__}-")
    top = {name.partition("/")[0] for name in names}
    assert top == {"comfy_machine", f"comfy_machine-{__version__}.dist-info"}
    package = {name.partition("/")[2] for name in names}
    assert {"dodo.py", "pyproject.toml", "templates/page.html", "services/shim.py"} <= package
    tracked = subprocess.check_output(["git", "ls-files", "tasks"], cwd=PROJECT, text=True).split()
    assert {name.removeprefix("tasks/") for name in tracked} <= package
    assert not [name for name in names if "__pycache__" in name]


def test_a_machine_comes_up_serves_and_goes_down(installed: Installed, here: Rig) -> None:
    def run(*words: str, code: int = 0) -> str:
        return bare([str(installed.program), *words], here.folder, here.env, code)

    assert "comfyui-gpu0 is down: not started; run comfy-machine" in run("status", code=1)
    assert "~ validation: " in run("plan")
    run()
    assert here.healthy()
    server, watcher = here.server(), here.watcher()
    assert server
    assert watcher
    for app in (server, watcher):
        assert str(installed.folder / "bin") in " ".join(psutil.Process(app.pid).cmdline())
    assert run().startswith("nothing to do, ")
    table = run("status")
    assert "comfyui-gpu0" in table
    assert "healthy" in table
    assert run("probe") == "healthy\n"
    assert "comfyui-gpu0: " in run("smoke")

    before = here.running()["comfyui-gpu0"]
    psutil.Process(before.pid).kill()
    until(
        lambda: here.running().get("comfyui-gpu0", before) != before and here.healthy(),
        60,
        "PM2 to start the instance again",
    )
    assert str(installed.package / "services" / "shim.py") in json.dumps(here.config())

    unit = run("service", "--print")
    start, stop = command(value(unit, "ExecStart")), command(value(unit, "ExecStop"))
    assert start[-2:] == [str(installed.program), f"machine={here.file}"]
    for words in (start, stop):
        bare(words, Path(value(unit, "WorkingDirectory")), here.env)
    assert here.running() == {}
    assert apps.running(here.workspace, None) == []
    assert run("down") == "nothing was running\n"


def test_a_run_leaves_nothing_beside_the_machine_file_but_the_lock(
    installed: Installed, here: Rig
) -> None:
    bare([str(installed.program), "build"], here.folder, here.env)
    assert {path.name for path in here.folder.iterdir()} == {"machine.yaml", "machine.lock", "ws"}


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "other.yaml", "status"],
        ["status", "-mother.yaml"],
        ["status", "--machine", "other.yaml"],
        ["--machine=other.yaml", "status"],
        ["status", "machine=other.yaml"],
    ],
)
def test_another_machine_file_is_named_before_or_after_the_verb(
    installed: Installed, here: Rig, words: list[str]
) -> None:
    here.file.rename(here.folder / "other.yaml")
    said = bare([str(installed.program), *words], here.folder, code=1)
    assert "comfyui-gpu0" in said


def test_env_local_and_relative_paths_are_beside_the_machine_file(
    installed: Installed, here: Rig, tmp_path: Path
) -> None:
    here.spec["workers"] = [{"name": "w", "command": ["true"], "env": {"KEY": "${WHEEL_KEY}"}}]
    here.write()
    away = tmp_path / "away"
    away.mkdir()
    words = [str(installed.program), "-m", os.path.relpath(here.file, away), "variables"]
    assert "WHEEL_KEY isn't set" in bare(words, away, code=1)
    (here.folder / ".env.local").write_text("WHEEL_KEY=1\n")
    bare(words, away)
    assert list(away.iterdir()) == []
    assert here.layout.machine.is_dir()


def test_without_a_machine_file_one_line_says_how_to_begin(
    installed: Installed, tmp_path: Path
) -> None:
    for words in ([], ["status"], ["plan"], ["list"]):
        said = bare([str(installed.program), *words], tmp_path, code=3)
        assert said == f"ERROR: no machine.yaml in {tmp_path}: comfy-machine init writes one\n"
    said = bare([str(installed.program), "-m", "x.yaml"], tmp_path, code=3)
    assert "x.yaml: no such file" in said


def test_its_commands_are_those_of_doit_in_the_clone(installed: Installed) -> None:
    text = (installed.package / "pyproject.toml").read_text()
    assert text == (PROJECT / "pyproject.toml").read_text()
    assert "properties" in json.loads(bare([str(installed.program), "schema"], installed.folder))


def test_the_source_distribution_makes_the_same_wheel(installed: Installed, tmp_path: Path) -> None:
    _run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)], PROJECT)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    folder = tmp_path / archive.name.removesuffix(".tar.gz")
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)], folder)
    assert _contents(next(tmp_path.glob("*.whl"))) == _contents(installed.wheel)


def _contents(wheel: Path) -> dict[str, int]:
    """Name and checksum of each file."""
    with zipfile.ZipFile(wheel) as archive:
        return {each.filename: each.CRC for each in archive.infolist()}


def test_its_metadata_name_version_license_and_what_it_requires(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        about = f"comfy_machine-{__version__}.dist-info"
        metadata = archive.read(f"{about}/METADATA").decode()
        assert archive.read(f"{about}/licenses/LICENSE") == (PROJECT / "LICENSE").read_bytes()
    fields = message_from_string(metadata)
    assert (fields["Name"], fields["Version"]) == ("comfy-machine", __version__)
    assert (fields["License-Expression"], fields["Requires-Python"]) == ("MIT", ">=3.10")
    assert len(fields.get_all("Requires-Dist", [])) > 15


def test_among_the_packages_of_a_user_it_says_how_to_install_it(
    installed: Installed, tmp_path: Path
) -> None:
    """Where services, which see no such packages, would fail one after the other."""
    python = Path(sys.base_prefix) / "bin" / "python3"
    env = {
        "PYTHONUSERBASE": str(tmp_path / "base"),
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
    }
    install = "-m pip install --user --no-deps --no-index --quiet".split()
    if subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("the Python of this virtual environment has no pip")
    bare([str(python), *install, str(installed.wheel)], tmp_path, env)
    program = tmp_path / "base" / "bin" / "comfy-machine"
    said = bare([str(program), "list"], tmp_path, env, code=3)
    assert said.startswith("ERROR: comfy-machine is among the packages of a user")
    assert len(said.splitlines()) == 1
