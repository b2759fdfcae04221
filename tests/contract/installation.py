"""A ComfyUI folder and its interpreter; servers that the tests start from it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from tests.contract.client import Client, until

STOP_TIMEOUT = 30.0
"""Seconds until a server must have ended after a signal."""

# A node that runs until the file it was given is there. It can be interrupted.
WAITING_NODE = """
    import pathlib, time
    import comfy.model_management

    class WaitForFile:
        INPUT_TYPES = classmethod(lambda cls: {"required": {"path": ("STRING", {})}})
        RETURN_TYPES = ()
        FUNCTION = "run"
        OUTPUT_NODE = True

        def run(self, path):
            while not pathlib.Path(path).exists():
                comfy.model_management.throw_exception_if_processing_interrupted()
                time.sleep(0.01)
            return {}

    NODE_CLASS_MAPPINGS = {"WaitForFile": WaitForFile}
"""


def node(body: str, name: str = "Noted") -> str:
    """The source of a custom node whose only class has body as its method ``run``."""
    indented = textwrap.indent(textwrap.dedent(body).strip(), " " * 8)
    return f"""\
class {name}:
    INPUT_TYPES = classmethod(lambda cls: {{"required": {{"value": ("INT", {{}})}}}})
    RETURN_TYPES = ("INT",)
    FUNCTION = "run"
    OUTPUT_NODE = True

    def run(self, value):
{indented}

NODE_CLASS_MAPPINGS = {{"{name}": {name}}}
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def heed_sigint() -> None:
    """Undo what a shell does to its background jobs: they and all below ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Base:
    """A scratch folder for --base-directory: models, custom nodes, inputs and outputs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("custom_nodes", "models", "input", "output", "user", "temp"):
            (path / name).mkdir(parents=True)

    def add(self, relative: str, text: str = "") -> Path:
        """Write a file below the folder."""
        file = self.path / relative
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return file

    def add_node(self, name: str, source: str) -> Path:
        """Write a custom node; its directory comes back."""
        return self.add(f"custom_nodes/{name}/__init__.py", source).parent

    @property
    def flags(self) -> list[str]:
        return [
            *("--base-directory", str(self.path), "--user-directory", str(self.path / "user")),
            *("--database-url", f"sqlite:///{self.path / 'comfyui.db'}"),
        ]


class Server(Client):
    """A server that a test started."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path, base: Base) -> None:
        super().__init__(url)
        self.process = process
        self.base = base
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def stop(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; the exit code comes back."""
        self.process.send_signal(number)
        return self.process.wait(STOP_TIMEOUT)


@cache
def _known(directory: Path, python: str, always: tuple[str, ...]) -> frozenset[str]:
    command = [python, "main.py", *always, "--help"]
    text = subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True).stdout
    return frozenset(re.findall(r"^ +(--[\w-]+)", text, re.M))


@dataclass
class Installation:
    """ComfyUI, simulated or real."""

    directory: Path
    python: str
    start_timeout: float
    """Seconds until a server must answer, on a busy machine."""
    scratch: Path
    servers: list[Server] = field(default_factory=list)
    always: tuple[str, ...] = ()
    """Flags that every process gets."""

    @cached_property
    def known(self) -> frozenset[str]:
        """The flags that --help names: what this ComfyUI has and others lack is asked of it."""
        return _known(self.directory, self.python, self.always)

    def base(self, name: str = "base") -> Base:
        return Base(self.scratch / name)

    def launch(
        self,
        base: Base,
        *flags: str,
        port: int | None = None,
        cpu: bool = True,
        env: dict[str, str] | None = None,
        before: Sequence[str] = (),
    ) -> Server:
        """Start a process and don't wait for it; `before` is a program that becomes it."""
        port = port or free_port()
        log = self.scratch / f"{len(self.servers)}.log"
        command = [
            *before,
            self.python,
            "main.py",
            *self.always,
            "--port",
            str(port),
            *base.flags,
            *flags,
        ]
        dropped = {"PYTHONDONTWRITEBYTECODE", "SIMULATE_GPU", "CUDA_VISIBLE_DEVICES"}
        environment = {k: v for k, v in os.environ.items() if k not in dropped} | (env or {})
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--cpu"] if cpu else command,
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=heed_sigint,
            )
        server = Server(f"http://127.0.0.1:{port}", process, log, base)
        self.servers.append(server)
        return server

    def start(self, base: Base, *flags: str) -> Server:
        """Start a server and wait until it answers."""
        return self.wait(self.launch(base, *flags))

    def wait(self, server: Server) -> Server:
        """Wait until a launched server answers."""
        until(lambda: server.answers() or server.ended, self.start_timeout, "a server to answer")
        assert not server.ended, server.log
        return server

    def run(
        self,
        base: Base,
        *flags: str,
        port: int | None = None,
        cpu: bool = True,
        env: dict[str, str] | None = None,
    ) -> Server:
        """Start a process that ends by itself."""
        server = self.launch(base, *flags, port=port, cpu=cpu, env=env)
        server.process.wait(self.start_timeout)
        return server

    def load(self, base: Base, *flags: str) -> Server:
        """Load everything and exit, as a check of custom nodes does."""
        return self.run(base, "--quick-test-for-ci", *flags)

    def close(self) -> None:
        for server in self.servers:
            if not server.ended:
                server.process.kill()
            server.process.wait()
