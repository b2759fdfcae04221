"""Starts doit over and over without the start of Python: a process with all modules loaded forks.

Python, the libraries and our modules take half a second of a core, most of what a run of doit
does here, and the tests have some 1,500. No module of ours reads a clock, a variable or a file
when it is imported, so a fork begins as the program does. Two such processes take turns, so that
the order of sets differs from run to run, as it does for everyone.
"""

from __future__ import annotations

import ast
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from doit.doit_cmd import DoitConfig

PROJECT = Path(__file__).parents[1]
DOIT = str(Path(sys.executable).parent / "doit")
LIBRARIES = """concurrent.futures.thread doit.cmd_list doit.cmd_run doit.doit_cmd doit.plugin
doit.reporter doit.runner encodings.utf_8_sig git http.client importlib.metadata jinja2 netrc
packaging.requirements psutil pydantic.fields pydantic.functional_validators pydantic.json_schema
pydantic.main pydantic.plugin._loader pydantic.type_adapter pydantic.types requests secrets sqlite3
ssl tomllib yaml zipfile""".split()
READ_AT_THE_START = ("GIT_PYTHON", "LANG", "LC_", "LD_", "PATH", "PYTHON", "TZ")
"""How the variables begin that Python, or a library, looks at when it is loaded."""
GRACE = 60.0
"""Seconds that a process has to end what it started."""
LONGEST = 1 << 17
"""Bytes of a request: a run's words and variables."""


class Starter:
    """A process that forks; it ends with this one."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            # Python looks at its start whether it prints into a pipe.
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())], env=env, cwd=PROJECT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def run(
        self, words: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float
    ) -> tuple[int, str]:
        """Run doit; its exit code, and what it printed. Raises subprocess.TimeoutExpired."""
        request = json.dumps([list(words), str(cwd), dict(env)]).encode()
        reading, writing = os.pipe()
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, os.fdopen(writing, "wb"):
            socket.send_fds(self._requests, [request], [writing, theirs.fileno()])
        with answers, os.fdopen(reading, "rb"):
            pid = int(answers.recv(16))
            output, deadline = b"", time.monotonic() + timeout
            try:
                while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
                    if not (chunk := os.read(reading, 1 << 16)):
                        return int(answers.recv(16)), output.decode()
                    output += chunk
                raise subprocess.TimeoutExpired(list(words), timeout, output)
            except BaseException:
                for number in (signal.SIGTERM, signal.SIGKILL):
                    with suppress(ProcessLookupError):
                        os.kill(pid, number)
                    if select.select([answers], [], [], GRACE)[0]:
                        break
                raise

    def close(self) -> None:
        self._requests.close()
        self._process.communicate()


class Turns:
    """Two of them, from their first use on, for runs with the variables of now."""

    def __init__(self) -> None:
        self._env = dict(os.environ)
        self._both: list[Starter] = []

    def suit(self, words: Sequence[str], env: Mapping[str, str]) -> bool:
        """Whether Python would load for this run what is loaded here."""
        return words[0] == DOIT and _read_at_the_start(env) == _read_at_the_start(self._env)

    def next(self) -> Starter:
        self._both = self._both[::-1] or [Starter(self._env), Starter(self._env)]
        return self._both[0]

    def close(self) -> None:
        for starter in self._both:
            starter.close()


_turns: Turns | None = None


@contextmanager
def forking() -> Iterator[None]:
    """While this lasts, doit is started by forks."""
    global _turns
    _turns = Turns()
    yield
    _turns.close()
    _turns = None


def run(words: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float) -> tuple[int, str]:
    """Run doit, for at most `timeout` seconds; its exit code, and what it printed.

    When it takes longer, or this process is told to end, doit is ended in order: killed, it would
    leave commands of PM2's running, which start what a machine that is then closed doesn't know.
    """
    if _turns and _turns.suit(words, env):
        return _turns.next().run(words, cwd, env, timeout)
    with subprocess.Popen(
        words, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as doit:
        try:
            printed, _ = doit.communicate(timeout=timeout)
        except BaseException:
            end(doit)
            raise
    return doit.returncode, printed


def end(process: subprocess.Popen[str]) -> None:
    """SIGTERM, and SIGKILL after GRACE seconds."""
    process.terminate()
    try:
        process.communicate(timeout=GRACE)
    except subprocess.TimeoutExpired:
        process.kill()


def _read_at_the_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(READ_AT_THE_START)}


def our_modules() -> list[str]:
    """The modules that dodo.py imports, and those of the commands."""
    imports = [
        node
        for node in ast.parse((PROJECT / "dodo.py").read_text()).body
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("comfy_machine")
    ]
    stages = [
        f"{node.module}.{name.name}"
        for node in imports
        for name in node.names
        if find_spec(str(node.module)).submodule_search_locations  # type: ignore[union-attr]
    ]
    commands = DoitConfig().load_config_toml(str(PROJECT / "pyproject.toml"), "tool.doit")[
        "COMMAND"
    ]
    return [*stages, *(where.partition(":")[0] for where in commands.values())]


def serve(requests: socket.socket) -> None:
    """Fork for each request, until nobody can ask any more; in a fork it is doit that ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, LONGEST, 2)
        if not request:
            return
        if os.fork() == 0:
            requests.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _run(json.loads(request), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _run(request: tuple[list[str], str, dict[str, str]], printed: int, answer: int) -> None:
    """Fork once more, for somebody has to see how doit ends."""
    pid = os.fork()
    if pid == 0:
        os.close(answer)
        _become_doit(printed, *request)
    os.close(printed)
    with socket.socket(fileno=answer) as answers:
        answers.send(str(pid).encode())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        answers.send(str(code).encode())
    os._exit(0)


def _become_doit(printed: int, words: list[str], cwd: str, env: dict[str, str]) -> None:
    """What the program `doit` does, with what it has from whoever starts it."""
    from doit.__main__ import main

    for descriptor in (1, 2):
        os.dup2(printed, descriptor)
    os.close(printed)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[:] = words
    sys.path[0] = str(Path(words[0]).parent)
    sys.exit(main())


if __name__ == "__main__":
    for library in LIBRARIES:
        with suppress(ImportError):
            import_module(library)
    for module in our_modules():
        import_module(module)
    # What is there for good needn't be looked through in each fork.
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
