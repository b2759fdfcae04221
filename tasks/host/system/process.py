"""Child processes: run one to its end, its output in a log; end all of them with us."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from . import files
from .failure import Failure
from .redaction import mask, redact

#: Variables that every child gets, for files, language and network.
ALLOWED = frozenset(
    """PATH HOME LANG LANGUAGE LC_ALL LC_CTYPE TZ TMPDIR USER LOGNAME SHELL
    http_proxy https_proxy no_proxy all_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY
    SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
    LD_LIBRARY_PATH HF_HOME XDG_CACHE_HOME""".split()
)
ALLOWED_PREFIXES = ("NVIDIA_",)
RUN = "COMFY_MACHINE_RUN"
"""The variable that marks a run's children. Its value is `run_id()`."""
GRACE = 6.0
"""Seconds between SIGTERM and SIGKILL."""
CHECK_EVERY = 1.0
"""Seconds between two calls of `enough`."""
ENDING = "this run is ending"
_ends = threading.Event()
"""Set when this process has killed all that it started."""
CALM_LOOKS = 2
"""Looks in a row that must find nothing left."""
CALM_EVERY = 0.02
"""Seconds between two looks."""
CLOCK_DRIFT = 10.0
"""Seconds by which a process may seem to start after its own note: clocks are set."""
#: Where Debian, Ubuntu and Red Hat keep their certificates.
CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
#: Prefixes of further variables for installers: git, uv, npm and the scripts of custom nodes.
INSTALLER_PREFIXES = (
    "GIT_", "PIP_", "UV_", "npm_config_", "NODE_EXTRA_CA_CERTS", "SSH_AUTH_SOCK", "NETRC",
)  # fmt: skip
#: Prefixes that are never passed on: git would print every URL and header with credentials.
TRACES = ("GIT_TRACE", "GIT_CURL_VERBOSE")


class CommandFailed(Failure):
    """A command ended with a code other than 0, or ran out of time.

    `output` is what it printed, `code` its exit code (negative: the signal that ended it; None: it
    ran out of time, as `timed_out` says, or didn't start).
    """

    def __init__(
        self,
        message: str,
        output: str,
        log: Path | None,
        code: int | None = None,
        *,
        timed_out: bool = False,
    ) -> None:
        super().__init__(message, log)
        self.output = output
        self.code = code
        self.timed_out = timed_out


@dataclass(frozen=True)
class _Ending:
    """How a command ended; `problem` is empty if it succeeded."""

    problem: str = ""
    code: int | None = None
    timed_out: bool = False


def certificates() -> str | None:
    """The file with the certificates that this system trusts; None: there is none."""
    system = ssl.get_default_verify_paths().openssl_cafile
    return next((file for file in (*CERTIFICATES, system) if Path(file).is_file()), None)


def allowed_environment(environ: Mapping[str, str], *, installer: bool = False) -> dict[str, str]:
    """The part of `environ` that children get; without the caller's secrets.

    An installer also gets the certificates that this system trusts, which a company's proxy needs:
    uv and Node use only their own by default.
    """
    prefixes = ALLOWED_PREFIXES + (INSTALLER_PREFIXES if installer else ())
    allowed = {
        k: v
        for k, v in environ.items()
        if k in ALLOWED or (k.startswith(prefixes) and not k.startswith(TRACES))
    }
    if installer and (bundle := certificates()):
        return {"UV_SYSTEM_CERTS": "true", "NODE_EXTRA_CA_CERTS": bundle} | allowed
    return allowed


def run(
    argv: Sequence[object],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    log: Path | None = None,
    timeout: float | None = None,
    stays: bool = False,
    enough: Callable[[], bool] | None = None,
    secrets: Collection[str] = (),
) -> str:
    """Run `argv` and return its output (stdout and stderr together, the last 16 MiB).

    The output is appended to `log` as it comes; when the command has ended, credentials in URLs
    and `secrets` are masked there and in the returned text. After `timeout` seconds the process
    group is ended (SIGTERM, SIGKILL after GRACE seconds). When `enough`, called every second,
    returns True, it is ended too, without an error. If this process is killed, the next run ends
    what it left behind, unless the command `stays`, as PM2's daemon does. Raises CommandFailed.
    """
    words = [str(word) for word in argv]
    marks = {} if stays else {RUN: run_id()}
    with files.open_log(log) if log else tempfile.TemporaryFile() as sink:
        if log:
            sink.write(f"$ {redact(shlex.join(words))}\n".encode())
            sink.flush()
        start = sink.seek(0, os.SEEK_END)
        try:
            ending = _run(words, {**env, **marks}, cwd, sink.fileno(), timeout, enough)
        finally:
            _mask(sink, start, secrets)
        output = _read(sink, start)
    if ending.problem and _ends.is_set():
        # It was killed by us, which says nothing about it.
        raise SystemExit(ENDING)
    if ending.problem:
        message = f"{Path(words[0]).name} {ending.problem}"
        raise CommandFailed(message, output, log, ending.code, timed_out=ending.timed_out)
    return output


def _run(
    words: list[str],
    env: dict[str, str],
    cwd: Path | None,
    sink: int,
    timeout: float | None,
    enough: Callable[[], bool] | None,
) -> _Ending:
    try:
        child = subprocess.Popen(
            words,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return _Ending(f"can't be started: {error.strerror}: {words[0]}")
    try:
        code = _wait(child, timeout, enough)
    except subprocess.TimeoutExpired:
        _end(child)
        return _Ending(f"ran longer than {timeout:g} s", timed_out=True)
    except BaseException:
        _end(child)
        raise
    if code < 0:
        return _Ending(f"was ended by {signal.Signals(-code).name}", code)
    return _Ending(f"ended with code {code}" if code else "", code)


def _wait(
    child: subprocess.Popen[bytes], timeout: float | None, enough: Callable[[], bool] | None
) -> int:
    """The exit code; 0 if `enough` ended it. Raises TimeoutExpired."""
    if enough is None:
        return child.wait(timeout)
    deadline = time.monotonic() + (timeout if timeout is not None else float("inf"))
    while True:
        try:
            return child.wait(min(CHECK_EVERY, max(0.0, deadline - time.monotonic())))
        except subprocess.TimeoutExpired:
            if enough():
                _end(child)
                return 0
            if time.monotonic() >= deadline:
                raise


def _end(child: subprocess.Popen[bytes]) -> None:
    """Terminate it, then kill the rest of its process group."""
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(GRACE)
    kill_group(child.pid)
    child.wait()


def _mask(file: IO[bytes], start: int, secrets: Collection[str]) -> None:
    """Redact a file from byte `start`; it is rewritten only if it needs that."""
    file.seek(start)
    if all(_redacted(line, secrets) == line for line in file):
        return
    file.seek(start)
    content = _redacted(file.read(), secrets)
    file.truncate(start)
    file.seek(start)
    file.write(content)
    file.flush()


def _redacted(content: bytes, secrets: Collection[str]) -> bytes:
    text = mask(redact(content.decode(errors="surrogateescape")), secrets)
    return text.encode(errors="surrogateescape")


def _read(file: IO[bytes], start: int, limit: int = 1 << 24) -> str:
    """A file's content from byte `start`, at most the last `limit` bytes."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(start, size - limit))
    return file.read().decode(errors="replace")


def tail(log: Path, limit: int = 65536) -> str:
    """The last `limit` bytes of a log; empty: it can't be read."""
    try:
        with log.open("rb") as file:
            return _read(file, 0, limit)
    except OSError:
        return ""


def last_line(text: str) -> str:
    """The last line that isn't blank: usually the gist of a traceback or error output."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def command_of(pid: int) -> str | None:
    """The command line of a process, redacted; None when it has ended or isn't visible here."""
    import psutil

    try:
        process = psutil.Process(pid)
        return redact(" ".join(" ".join(process.cmdline() or [process.name()]).split()))
    except psutil.Error:
        return None


def kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def end_children() -> None:
    """Kill all descendants of this process; PM2's daemon isn't one."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def end_for_good() -> None:
    """Kill all that this process started, and let it start nothing any more.

    Its threads go on: one whose command was killed would try another way, as `uv` without its
    cache, or blame what it was about. It gets SystemExit, as does who starts another.
    """
    _ends.set()
    sys.addaudithook(_refuse_to_start)
    calm, deadline = 0, time.monotonic() + GRACE
    # A command may be on its way past the hook, and a child may have children meanwhile.
    while calm < CALM_LOOKS and time.monotonic() < deadline:
        end_children()
        calm = 0 if end_left_by(run_id()) or _alive() else calm + 1
        time.sleep(CALM_EVERY)


def _refuse_to_start(event: str, _: object) -> None:
    if event in ("subprocess.Popen", "os.posix_spawn", "os.fork"):
        raise SystemExit(ENDING)


def _alive() -> bool:
    """Whether a child of this process hasn't ended."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def end_left_by(run: str) -> int:
    """Kill what a killed run has left behind; return how many."""
    import psutil

    number = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(RUN) == run and process.pid != os.getpid():
                process.kill()
                number += 1
    return number


@cache
def run_id() -> str:
    """This process, as "PID.NANOSECONDS": a pid alone may be reused."""
    return f"{os.getpid()}.{time.time_ns()}"


def is_run(run: str) -> bool:
    """Whether the run with this `run_id()` still runs; its pid may have been reused."""
    import psutil

    try:
        pid, id_made_at = (int(number) for number in run.split("."))
        process = psutil.Process(pid)
        is_other = process.create_time() > id_made_at / 1e9 + CLOCK_DRIFT
        return not is_other and process.status() != psutil.STATUS_ZOMBIE
    except (ValueError, OverflowError, psutil.Error):
        return False
