"""What runs for a workspace, read from real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from comfy_machine.host.pm2 import apps
from comfy_machine.host.system import usage
from tests.contract.client import until

Starter = Callable[..., "subprocess.Popen[str]"]

SAY_AND_WAIT = "import sys; print('up', flush=True); sys.stdin.read()"
DEAF = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); " + SAY_AND_WAIT
HEEDS = "import signal; signal.signal(signal.SIGINT, lambda *_: sys.exit(0)); " + SAY_AND_WAIT
PARENT = (
    "import subprocess, sys; "
    f"child = subprocess.Popen([sys.executable, '-c', {SAY_AND_WAIT!r}]); child.wait()"
)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Starts Python code that says a line when it is up, marked as an app of a workspace."""
    started: list[subprocess.Popen[str]] = []

    def start(name: str, code: str = SAY_AND_WAIT, workspace: Path = tmp_path) -> object:
        marks = {apps.WORKSPACE: str(workspace), apps.NAME: name, apps.FINGERPRINT: f"f-{name}"}
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys; " + code],
            env=os.environ | marks,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    yield start  # type: ignore[misc]
    for process in started:
        process.communicate()


@pytest.mark.skipif(os.getuid() != 0, reason="only root changes its root")
def test_an_app_of_a_container_is_another_machines(start: Starter, tmp_path: Path) -> None:
    start("a", f"import os; os.chroot({str(tmp_path)!r}); " + SAY_AND_WAIT)
    assert apps.running(tmp_path, None) == []


def test_apps_are_found_by_their_marks(start: Starter, tmp_path: Path) -> None:
    b, a = start("b"), start("a")
    found = apps.running(tmp_path, None)
    assert [(app.name, app.pid, app.fingerprint) for app in found] == [
        ("a", a.pid, "f-a"),
        ("b", b.pid, "f-b"),
    ]
    assert found[0].started == psutil.Process(a.pid).create_time()


def test_another_workspaces_apps_are_not_ours(start: Starter, tmp_path: Path) -> None:
    start("a", workspace=tmp_path / "other")
    start("b", workspace=Path(f"{tmp_path}2"))
    assert apps.running(tmp_path, None) == []


def test_only_a_child_of_the_daemon_is_supervised(start: Starter, tmp_path: Path) -> None:
    start("a")
    assert [app.supervised for app in apps.running(tmp_path, os.getpid())] == [True]
    assert [app.supervised for app in apps.running(tmp_path, os.getppid())] == [False]
    assert [app.supervised for app in apps.running(tmp_path, None)] == [False]


def test_the_children_of_an_app_are_not_counted(start: Starter, tmp_path: Path) -> None:
    process = start("a", PARENT)
    assert len(psutil.Process(process.pid).children()) == 1
    assert [app.pid for app in apps.running(tmp_path, None)] == [process.pid]


def test_an_app_that_ended_is_not_running(start: Starter, tmp_path: Path) -> None:
    process = start("a")
    process.send_signal(signal.SIGKILL)
    # nobody waits for it: it stays a zombie
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE, 10, "its end")
    assert apps.running(tmp_path, None) == []


def ended(process: subprocess.Popen[str]) -> bool:
    return not psutil.pid_exists(process.pid) or process.poll() is not None


def test_an_orphan_is_ended_by_sigint(start: Starter, tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = HEEDS.replace("sys.exit(0)", f"(open({str(told)!r}, 'w').close(), sys.exit(0))")
    process = start("a", code)
    (app,) = apps.running(tmp_path, None)
    apps.end(app)
    assert ended(process)
    assert told.exists()


def test_one_that_is_deaf_to_sigint_is_killed(
    start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apps, "GRACE", 0.3)
    process = start("a", DEAF)
    (app,) = apps.running(tmp_path, None)
    apps.end(app)
    assert ended(process)


def test_one_that_nobody_takes_note_of_has_ended(tmp_path: Path) -> None:
    script = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True); "
    code = f"{script}sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        apps.end(apps.App("a", child.pid, "", False, child.create_time()))
        assert child.status() == psutil.STATUS_ZOMBIE
        assert apps.ends(child, 0)
        parent.communicate()


def test_another_process_with_the_pid_of_one_that_is_gone_is_spared(
    start: Starter, tmp_path: Path
) -> None:
    process = start("a")
    (app,) = apps.running(tmp_path, None)
    apps.end(apps.App(app.name, app.pid, app.fingerprint, False, app.started - 100))
    assert process.poll() is None
    apps.end(app)
    apps.end(app)
    assert ended(process)


def test_folders_in_which_a_process_works_are_in_use(tmp_path: Path) -> None:
    for name in ("used/deep", "idle"):
        (tmp_path / name).mkdir(parents=True)
    assert apps.folders_in_use(tmp_path) == set()
    with subprocess.Popen(["cat"], cwd=tmp_path / "used" / "deep", stdin=subprocess.PIPE) as cat:
        assert apps.folders_in_use(tmp_path) == {"used"}
        cat.communicate()
    assert apps.folders_in_use(tmp_path) == set()


def test_the_memory_of_an_app_is_its_childrens_too(start: Starter, tmp_path: Path) -> None:
    parent, alone = start("a", PARENT), start("b")
    (child,) = psutil.Process(parent.pid).children()
    found = apps.running(tmp_path, None)
    until(lambda: child.memory_info().rss > 5e6, 10, "the child")
    resident = usage.resident_each(app.pid for app in found)
    own = {pid: psutil.Process(pid).memory_info().rss for pid in (parent.pid, child.pid, alone.pid)}
    assert set(resident) == {parent.pid, alone.pid}
    assert abs(resident[parent.pid] - own[parent.pid] - own[child.pid]) < 2e6
    assert abs(resident[alone.pid] - own[alone.pid]) < 2e6
    assert usage.resident_each([]) == {}


def test_what_ends_ends_before_what_it_needs() -> None:
    every = [*apps.JOBS, "jobs-gpu0", "comfyui-gpu0", apps.SERVER]
    assert list(apps.in_turn(every)) == [
        {"jobs-gpu0", apps.SERVER}, {apps.GATEWAY}, {apps.SCHEDULER},
    ]  # fmt: skip
    assert list(apps.in_turn(["comfyui-gpu0", apps.JOBS_SERVER])) == []
    assert not any(apps.is_instance(name) for name in apps.OURS)
