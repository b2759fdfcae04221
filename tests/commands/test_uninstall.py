"""doit uninstall: lists first; removes what the machine made, and nothing of anybody else's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from comfy_machine.commands import uninstall
from comfy_machine.commands.shared import belongings
from comfy_machine.engine.run import Run
from comfy_machine.host.pm2 import apps, pm2
from comfy_machine.host.system import private_folder, systemd
from comfy_machine.host.system.run_lock import RunLock
from comfy_machine.spec import load
from tests.commands.test_plan import every_byte
from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.rig import Rig


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that a link in the workspace leads to."""
    folder = tmp_path / "nas"
    folder.mkdir()
    (folder / "big.safetensors").write_text("weights")
    return folder


@pytest.fixture
def rig(machine: MachineMaker, forge: Forge, outside: Path, tmp_path: Path) -> Rig:
    """A machine that runs, with files of people in all its folders."""
    rig = machine(
        custom_nodes=[{"url": forge.node("alpha").url}],
        models={"files": [{"target": "loras/big.safetensors",
                           "source": str(outside / "big.safetensors")}]},
    )  # fmt: skip
    # Caches that are only this test's.
    (tmp_path / "npm").mkdir()
    rig.env |= {"npm_config_cache": str(tmp_path / "npm")}
    rig.doit()
    for path in people(rig).values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    rig.env |= {"UV_CACHE_DIR": str(tmp_path / "uv")}
    for name in ("uv", "npm/_cacache"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("cached")
    return rig


def people(rig: Rig) -> dict[str, Path]:
    """A file of each kind."""
    return {
        "models": rig.workspace / "shared" / "models" / "vae" / "own.safetensors",
        "outputs": rig.layout.outputs(0) / "image.png",
        "inputs": rig.layout.inputs / "photo.png",
        "user-data": rig.layout.instance(0) / "user" / "default" / "workflow.json",
    }


def caches(rig: Rig, tmp_path: Path) -> list[Path]:
    return [tmp_path / "uv" / "file", tmp_path / "npm" / "_cacache" / "file",
            Path(rig.env["XDG_CACHE_HOME"]) / "comfy-machine" / "git"]  # fmt: skip


def test_without_yes_it_only_lists_with_sizes(rig: Rig, tmp_path: Path) -> None:
    (rig.comfyui / "custom_nodes" / "alpha" / "__init__.py").write_text("# mine\n")
    running = rig.running()
    said = rig.doit("uninstall").output
    assert rig.running() == running
    assert all(path.read_text() == "mine" for path in people(rig).values())
    going, _, staying = said.partition("\nstays:\n")
    assert "would end: comfyui-gpu0" in going
    line = next(line for line in going.splitlines() if f" {rig.layout.machine}: " in line)
    assert line.split()[1] in ("kB", "MB", "GB")
    assert line.endswith(", without what stays")
    assert f"link  {rig.workspace / 'ComfyUI'}: the link to the current ComfyUI\n" in going
    assert "custom_nodes/alpha: edited: __init__.py" in going
    for kind, path in people(rig).items():
        assert f"--{kind} removes it" in staying
        top = rig.layout.machine if kind == "user-data" else rig.workspace / "shared" / kind
        assert any(line.split()[2].startswith(str(top)) for line in staying.splitlines()[:-2]
                   if f"--{kind} " in line), path  # fmt: skip
    for path in caches(rig, tmp_path):
        folder = path if path.is_dir() else path.parent
        assert f"{folder}: " in staying
    assert str(rig.file) in staying
    assert said.splitlines()[-1] == "do it: doit uninstall --yes"


def test_with_yes_all_that_the_machine_made_is_gone_and_nothing_of_people(
    rig: Rig, outside: Path, tmp_path: Path
) -> None:
    private = private_folder.folder(rig.workspace)
    said = rig.doit("uninstall", "--yes").output
    assert "ended: comfyui-gpu0" in said
    assert apps.WATCHER in said
    assert apps.family(rig.workspace) == set()
    assert pm2.daemon(rig.layout) is None
    assert not private.exists()
    assert not (rig.workspace / "ComfyUI").is_symlink()
    assert all(path.read_text() == "mine" for path in people(rig).values())
    left = [path for path in rig.layout.machine.rglob("*") if path.is_file()]
    instance = rig.layout.instance(0)
    assert {path.relative_to(instance).parts[0] for path in left} <= {"user", "databases"}
    assert all(path.exists() for path in caches(rig, tmp_path))
    assert (outside / "big.safetensors").read_text() == "weights"
    assert rig.file.exists()
    assert rig.lock_file.exists()

    said = rig.doit("uninstall", "--yes").output
    assert said.startswith("stays:\n"), "it can be repeated"
    rig.doit()
    assert rig.healthy()
    assert people(rig)["user-data"].read_text() == "mine"


def test_what_is_asked_for_goes_too_and_links_out_of_the_workspace_are_not_followed(
    rig: Rig, outside: Path, tmp_path: Path
) -> None:
    options = [f"--{kind}" for kind in (*people(rig), "caches")]
    asked = rig.doit("uninstall", *options).output
    assert asked.splitlines()[-1].startswith("do it: doit uninstall --yes --caches --inputs")
    rig.layout.outputs(0).parent.rename(tmp_path / "elsewhere")
    (rig.workspace / "shared" / "outputs").symlink_to(tmp_path / "elsewhere")
    rig.doit("uninstall", "--yes", *options)
    assert not rig.workspace.exists()
    assert not any(path.exists() for path in caches(rig, tmp_path))
    assert (outside / "big.safetensors").read_text() == "weights"
    assert (tmp_path / "elsewhere" / "gpu0" / "image.png").read_text() == "mine"
    assert rig.file.exists()
    said = rig.doit("uninstall").output
    assert said.startswith("nothing to remove\n")
    assert "do it" not in said


def test_models_elsewhere_stay_and_are_named(
    machine: MachineMaker, outside: Path, tmp_path: Path
) -> None:
    rig = machine(
        models={"folder": str(outside), "extra_roots": [{"path": str(tmp_path / "more")}]}
    )
    (tmp_path / "more").mkdir()
    (rig.workspace / "shared").symlink_to(outside)
    rig.layout.inputs.mkdir()
    rig.layout.state.mkdir(parents=True)
    before = every_byte(outside)
    said = rig.doit("uninstall", "--yes", "--models", "--inputs").output
    assert every_byte(outside) == before
    for path in (outside, tmp_path / "more", rig.layout.inputs):
        line = next(line for line in said.splitlines() if f" {path}: " in line)
        assert "outside of the workspace" in line
    assert not rig.layout.machine.exists()


def test_killed_at_any_moment_it_can_be_repeated(rig: Rig, outside: Path) -> None:
    for seen in ("ended: ", "removed"):
        with rig.going("uninstall", "--yes", "--inputs", "--outputs") as going:
            assert going.stdout
            for line in going.stdout:
                if line.startswith(seen):
                    break
            going.kill()
    rig.doit("uninstall", "--yes", "--inputs", "--outputs")
    assert not rig.layout.generations.exists()
    assert not rig.layout.inputs.exists()
    assert not rig.layout.outputs(0).exists()
    assert apps.family(rig.workspace) == set()
    for kind in ("models", "user-data"):
        assert people(rig)[kind].read_text() == "mine"
    assert (outside / "big.safetensors").exists()


def test_it_is_refused_during_a_run_and_nothing_is_lost(rig: Rig) -> None:
    running = rig.running()
    lock = RunLock(rig.workspace)
    lock.take("models")
    try:
        said = rig.doit("uninstall", "--yes", code=2).output
        assert "another doit run is in progress" in said
    finally:
        lock.give_back()
    assert rig.running() == running


@pytest.fixture
def remains(tmp_path: Path) -> Run:
    """A workspace with some of what a machine makes; nothing runs."""
    file = tmp_path / "machine.yaml"
    file.write_text("workspace: ws\ncomfyui: {}\ninstances: {cpu_only: true}\n")
    run = Run(load(file, {}))
    for name in ("generations/a", "state/instances/gpu0/user", "receipts", "environments/e"):
        folder = run.layout.machine / name
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
        folder.with_name(f"{folder.name}.json").write_text("{}")
    return run


def test_what_was_half_removed_never_counts_as_complete(
    remains: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = next(
        each for each in belongings.find(remains, ()) if each.path == remains.layout.machine
    )
    with monkeypatch.context() as patch:

        def killed(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            belongings.remove(machine)
    assert (remains.layout.generations / "a" / "file").exists()
    assert not (remains.layout.generations / "a.json").exists()
    belongings.remove(machine)
    belongings.remove(machine)
    files = [path for path in remains.layout.machine.rglob("*") if path.is_file()]
    assert files == [remains.layout.instance(0) / "user" / "file"]


def test_a_systemd_unit_that_cannot_be_removed_is_named_and_the_rest_goes(
    remains: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    at = systemd.Manager(tmp_path / "units", user=True)
    monkeypatch.setattr(systemd, "manager", lambda: at)
    monkeypatch.setenv("PATH", os.devnull)
    unit = belongings.unit(remains)
    unit.parent.mkdir()
    unit.write_text("[Unit]\n")
    assert uninstall.listing(remains, set()) == 0
    assert f"would remove the systemd unit {unit}" in capsys.readouterr().out
    assert uninstall.uninstall(remains, {"user-data"}) == 1
    assert f"the systemd unit {unit} stays: no systemd of this user" in capsys.readouterr().err
    assert not remains.layout.machine.exists()


def test_a_folder_of_models_that_holds_the_others_is_removed_without_them(tmp_path: Path) -> None:
    file = tmp_path / "machine.yaml"
    file.write_text("workspace: ws\ncomfyui: {}\nmodels: {folder: shared}\n")
    run = Run(load(file, {}))
    for path in (run.layout.outputs(0), run.layout.inputs, tmp_path / "ws" / "shared" / "vae"):
        path.mkdir(parents=True)
        (path / "file").write_text("x")
    models = next(each for each in belongings.find(run, ["models"]) if each.kind == "models")
    belongings.remove(models)
    left = {path.parent for path in (tmp_path / "ws").rglob("*") if path.is_file()}
    assert left == {run.layout.outputs(0), run.layout.inputs}


def test_a_volume_is_emptied_and_stays(remains: Run, tmp_path: Path) -> None:
    mount = [
        "unshare", "--mount", "--propagation", "private", "sh", "-ec",
        'mount --bind "$1" "$2"; shift 2; exec "$@"', "sh",
    ]  # fmt: skip
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_text("x")
    try:
        subprocess.run([*mount, str(volume), str(volume), "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounts need rights that this user lacks")
    rig = Rig(tmp_path, {"workspace": "ws", "comfyui": {}, "instances": {"cpu_only": True}})
    state = remains.layout.state
    ended = subprocess.run(
        [*mount, str(volume), str(state), *rig.command("uninstall", "--yes")],
        cwd=rig.project, env=rig.environ(), capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert list(volume.iterdir()) == []
    assert [path.name for path in remains.layout.machine.iterdir()] == ["state"]
