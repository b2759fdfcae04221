"""Child processes: output, exit codes, time-outs, and what they get to see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from comfy_machine.host.system import process
from tests.contract.client import until

ENV = {"PATH": os.environ["PATH"]}


def sh(script: str, log: Path | None = None, timeout: float | None = 30) -> str:
    return process.run(["sh", "-c", script], env=ENV, log=log, timeout=timeout)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_stdout_and_stderr_come_back_together() -> None:
    assert sh("echo out; echo err >&2; echo again") == "out\nerr\nagain\n"


def test_output_goes_to_the_end_of_the_log_after_the_exact_command(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    sh("echo 'one two'", log)
    sh("echo three >&2", log)
    assert log.read_text().splitlines() == [
        "before", """$ sh -c 'echo '"'"'one two'"'"''""", "one two",
        "$ sh -c 'echo three >&2'", "three",
    ]  # fmt: skip


def test_output_is_in_the_log_while_the_command_runs(tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    script = f"echo started; until [ -e {go} ]; do sleep 0.02; done"
    thread = threading.Thread(target=sh, args=(script, log))
    thread.start()
    try:
        until(lambda: log.exists() and "\nstarted\n" in log.read_text(), 20, "the first line")
        assert thread.is_alive()
    finally:
        go.touch()
        thread.join()


def test_what_is_not_text_is_replaced(tmp_path: Path) -> None:
    assert sh(r"printf '\377ok'") == "�ok"
    assert sh(r"printf '\377ok'", tmp_path / "log") == "�ok"


def test_no_output_is_lost_however_soon_it_comes(tmp_path: Path) -> None:
    for _ in range(40):
        assert process.run(["echo", "at once"], env=ENV, log=tmp_path / "log") == "at once\n"


def test_a_command_reads_nothing() -> None:
    assert sh("cat; echo end") == "end\n"


@pytest.mark.parametrize("with_log", [False, True])
def test_a_bad_exit_code_is_told_with_output_and_log(tmp_path: Path, with_log: bool) -> None:
    log = tmp_path / "log" if with_log else None
    if log:
        sh("echo an earlier command", log)
    with pytest.raises(process.CommandFailed, match=r"^sh ended with code 7$") as caught:
        sh("echo why >&2; exit 7", log)
    assert (caught.value.code, caught.value.output) == (7, "why\n")
    assert caught.value.log == log


def test_the_signal_that_ended_a_command_is_named() -> None:
    with pytest.raises(process.CommandFailed, match=r"^sh was ended by SIGTERM$") as caught:
        sh("kill -TERM $$; sleep 60")
    assert caught.value.code == -15


def test_a_command_that_is_not_there_is_named() -> None:
    with pytest.raises(process.CommandFailed, match="No such file") as caught:
        process.run(["/no/such/program"], env=ENV)
    assert "/no/such/program" in str(caught.value)
    assert caught.value.code is None


@pytest.mark.parametrize("with_log", [False, True])
def test_a_timeout_kills_the_whole_group(tmp_path: Path, with_log: bool) -> None:
    pids = tmp_path / "pids"
    # a grandchild that heeds no polite signal, and its parent
    script = (
        f"(trap '' TERM INT HUP; echo said; sleep 300 & echo $! >> {pids}; wait) & "
        f"echo $! >> {pids}; echo $$ >> {pids}; wait"
    )
    with pytest.raises(process.CommandFailed, match=r"^sh ran longer than 1 s$") as caught:
        sh(script, tmp_path / "log" if with_log else None, timeout=1)
    assert caught.value.code is None
    found = [int(line) for line in pids.read_text().split()]
    assert len(found) == 3
    until(lambda: all(map(gone, found)), 10, "the group to be gone")


# interrupts itself as soon as the command runs and is waited for
INTERRUPTED = """
import os, signal, sys, threading, time
from comfy_machine.host.system import process

pid, script = sys.argv[1:]

def waits():
    frame = sys._current_frames()[threading.main_thread().ident]
    names = set()
    while frame:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    return "wait" in names and os.path.exists(pid)

def interrupt():
    while not waits():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=interrupt, daemon=True).start()
process.run(["sh", "-c", script], env={"PATH": os.environ["PATH"]}, timeout=60)
"""


def test_an_interrupted_caller_leaves_no_child(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"sleep 300 & echo $! > {pid}.part; mv {pid}.part {pid}; wait"
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(pid), script],
        stderr=subprocess.PIPE,
        text=True,
        timeout=90,
    )
    assert "KeyboardInterrupt" in ended.stderr
    until(lambda: gone(int(pid.read_text())), 10, "the child to be gone")


CALLER = {
    "PATH": "/bin", "HOME": "/root", "LANG": "C", "https_proxy": "http://proxy", "HF_HOME": "/hf",
    "NVIDIA_VISIBLE_DEVICES": "all", "LD_LIBRARY_PATH": "/cuda",
    "GIT_SSH_COMMAND": "ssh -4", "PIP_INDEX_URL": "https://index", "UV_CACHE_DIR": "/uv",
    "npm_config_registry": "https://npm", "SSH_AUTH_SOCK": "/sock", "NODE_EXTRA_CA_CERTS": "/ca",
    "NETRC": "/netrc",
    "HF_TOKEN": "secret", "AWS_SECRET_ACCESS_KEY": "secret", "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": "/elsewhere", "VIRTUAL_ENV": "/other", "COMFYUI_PORT": "1",
}  # fmt: skip
SECRETS = {"HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH",
           "VIRTUAL_ENV", "COMFYUI_PORT"}  # fmt: skip
INSTALLERS = {"GIT_SSH_COMMAND", "PIP_INDEX_URL", "UV_CACHE_DIR", "npm_config_registry",
              "SSH_AUTH_SOCK", "NODE_EXTRA_CA_CERTS", "NETRC"}  # fmt: skip


def test_an_app_gets_the_allowlist_and_no_secret() -> None:
    assert set(process.allowed_environment(CALLER)) == set(CALLER) - SECRETS - INSTALLERS


def test_an_installer_gets_its_own_settings_besides() -> None:
    allowed = process.allowed_environment(CALLER, installer=True)
    assert set(allowed) - {"UV_SYSTEM_CERTS"} == set(CALLER) - SECRETS
    assert allowed["GIT_SSH_COMMAND"] == "ssh -4"
    assert allowed["NODE_EXTRA_CA_CERTS"] == "/ca", "what the caller chose wins"


def test_a_child_sees_the_given_environment_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "canary")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    seen = process.run(
        [sys.executable, "-I", "-c", "import os; print(sorted(os.environ))"],
        env=process.allowed_environment(os.environ, installer=True),
    )
    assert "HF_TOKEN" not in seen
    assert "PYTHONDONTWRITEBYTECODE" not in seen
    assert "PATH" in seen


URL = "https://me:s3cret@host/a"


def test_credentials_in_what_a_command_prints_are_not_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    script = rf"echo 'one {URL}' >&2; printf '\377 two\n'"
    assert sh(script, log) == "one https://***@host/a\n\ufffd two\n"
    assert sh(script) == "one https://***@host/a\n\ufffd two\n"
    with pytest.raises(process.CommandFailed) as caught:
        sh(f"echo {URL}; exit 1", log)
    assert caught.value.output == "https://***@host/a\n"
    written = log.read_bytes()
    assert written.startswith(b"before\n$ sh -c 'echo")
    assert b"\none https://***@host/a\n\377 two\n$ sh -c" in written
    assert b"s3cret" not in written


def test_credentials_are_masked_also_after_a_timeout(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(process.CommandFailed, match="longer"):
        sh(f"echo {URL}; sleep 60", log, timeout=1)
    assert log.read_text().endswith("https://***@host/a\n")


def test_a_log_grows_on_where_it_was_masked(tmp_path: Path) -> None:
    log = tmp_path / "log"
    sh(f"echo {URL}", log)
    sh("echo after", log)
    assert log.read_text().splitlines()[1:] == ["https://***@host/a", "$ sh -c 'echo after'",
                                                "after"]  # fmt: skip


def test_no_child_is_told_to_trace_credentials() -> None:
    tracing = {"GIT_TRACE": "1", "GIT_TRACE2_EVENT": "/tmp/x", "GIT_CURL_VERBOSE": "1"}
    allowed = process.allowed_environment(CALLER | tracing, installer=True)
    assert set(allowed) & set(tracing) == set()


def test_the_tail_of_a_log_is_limited_and_never_fails(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("0123456789")
    assert process.tail(log, limit=4) == "6789"
    assert process.tail(tmp_path / "none") == ""


def test_the_last_line_is_the_last_that_says_something() -> None:
    assert process.last_line("a\n  b  \n\n \n") == "b"
    assert process.last_line("\n") == "no output"


def test_a_timeout_does_not_wait_for_a_child_that_left_the_group(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    begin = time.monotonic()
    with pytest.raises(process.CommandFailed, match="longer than 1 s"):
        process.run(["sh", "-c", f"setsid sleep 60 & echo $! > {pid}; sleep 300"],
                    env=ENV, timeout=1)  # fmt: skip
    assert time.monotonic() - begin < 50, "it waited for the child's end"
    os.kill(int(pid.read_text()), signal.SIGKILL)


def test_what_a_killed_run_left_is_ended_by_the_next(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from comfy_machine.host.system import process\n"
        "print(process.run_id(), flush=True)\n"
        "process.run(['sh', '-c', f'echo $$ > {sys.argv[1]}.part; mv {sys.argv[1]}.part "
        "{sys.argv[1]}; exec sleep 300'], env={'PATH': '/usr/bin:/bin'})\n"
    )
    pid = tmp_path / "pid"
    command = [sys.executable, "-c", script, str(pid)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        run_id = run.stdout.readline().strip()
        until(pid.exists, 30, "the command to start")
        run.kill()
    left = int(pid.read_text())
    assert not gone(left)
    process.end_left_by(run_id)
    until(lambda: gone(left), 10, "the command to be ended")
