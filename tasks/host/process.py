"""Child processes: run one to its end, its output in a log; end all of them with us."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.host.failure import Failure

#: Given to every child: what a program needs to find files, speak and reach the network.
ALLOWED = frozenset(
    """PATH HOME LANG LANGUAGE LC_ALL LC_CTYPE TZ TMPDIR USER LOGNAME SHELL
    http_proxy https_proxy no_proxy all_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY
    SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
    LD_LIBRARY_PATH HF_HOME XDG_CACHE_HOME""".split()
)
ALLOWED_PREFIXES = ("NVIDIA_",)
#: Where Debian, Ubuntu and Red Hat keep their certificates.
CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
#: Given besides to what installs: git, uv, npm and the scripts of custom nodes.
INSTALLER_PREFIXES = ("GIT_", "PIP_", "UV_", "npm_config_", "NODE_EXTRA_CA_CERTS", "SSH_AUTH_SOCK")


class CommandFailed(Failure):
    """A command ended with a code other than 0, or ran out of time.

    `output` holds the last 1 MiB of what it printed, `code` its exit code (negative: the
    signal that ended it; None: it ran out of time or never started).
    """

    def __init__(
        self, message: str, output: str, log: Path | None, code: int | None = None
    ) -> None:
        super().__init__(message, log)
        self.output = output
        self.code = code


def allowed_environment(environ: Mapping[str, str], *, installer: bool = False) -> dict[str, str]:
    """The part of `environ` that children may see; no secret of the caller is in it.

    An installer also trusts the certificates that this system trusts, as a company's proxy
    needs it: uv and Node come with their own, and look no further by themselves.
    """
    prefixes = ALLOWED_PREFIXES + (INSTALLER_PREFIXES if installer else ())
    allowed = {k: v for k, v in environ.items() if k in ALLOWED or k.startswith(prefixes)}
    system = ssl.get_default_verify_paths().openssl_cafile
    bundle = next((file for file in (*CERTIFICATES, system) if Path(file).is_file()), None)
    if installer and bundle:
        return {"UV_SYSTEM_CERTS": "true", "NODE_EXTRA_CA_CERTS": bundle} | allowed
    return allowed


def run(
    argv: Sequence[object],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    log: Path | None = None,
    timeout: float | None = None,
) -> str:
    """Run `argv` and return what it printed (stdout and stderr together).

    The output goes to the end of `log` while it comes. `timeout` is in seconds; after it
    the whole process group is killed. Raises CommandFailed.
    """
    words = [str(word) for word in argv]
    sink = log.open("ab") if log else None
    try:
        if sink:
            sink.write(f"$ {shlex.join(words)}\n".encode())
            sink.flush()
        return _run(words, env=env, cwd=cwd, sink_fd=sink.fileno() if sink else None,
                    log=log, timeout=timeout)  # fmt: skip
    finally:
        if sink:
            sink.close()


def _run(
    words: list[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None,
    sink_fd: int | None,
    log: Path | None,
    timeout: float | None,
) -> str:
    name = Path(words[0]).name
    start = os.fstat(sink_fd).st_size if sink_fd is not None else 0
    try:
        child = subprocess.Popen(
            words,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=sink_fd if sink_fd is not None else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(f"{name}: {error.strerror}: {words[0]}", "", log) from error
    try:
        printed, _ = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill_group(child.pid)
        child.communicate()
        raise CommandFailed(f"{name} ran longer than {timeout:g} s", tail(log), log) from None
    except BaseException:
        kill_group(child.pid)
        raise
    output = printed.decode(errors="replace") if printed is not None else tail(log, start)
    if child.returncode:
        ending = f"ended with code {child.returncode}"
        if child.returncode < 0:
            ending = f"was ended by {signal.Signals(-child.returncode).name}"
        raise CommandFailed(f"{name} {ending}", output, log, child.returncode)
    return output


def tail(log: Path | None, start: int = 0, limit: int = 65536) -> str:
    """The last `limit` bytes of a log, not before byte `start`; empty if it can't be read."""
    if log is None:
        return ""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - limit))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def last_line(text: str) -> str:
    """The last line that says something; the gist of a traceback or of an error output."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def end_children() -> None:
    """Kill whatever this process started and that still runs; PM2's daemon is no child of ours."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
