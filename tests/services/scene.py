"""A health server and simulated instances, started by hand: no doit, no PM2, no install."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from comfy_machine.host.pm2 import apps
from comfy_machine.host.python import pth_hook
from comfy_machine.host.system import private_folder
from comfy_machine.host.system.program_files import SERVICES
from comfy_machine.spec.layout import Layout
from tests.contract.client import until
from tests.contract.installation import Base, Installation, Server
from tests.rig import SIMULATOR, free_ports

Told = dict[str, Any]

PATIENCE = 30.0
"""Seconds until something must be seen, on a busy machine."""


def is_well(told: Told) -> bool:
    """No more is wrong than that there is no PM2."""
    return bool(
        told["status"] == "degraded" and told["reason"] == "PM2 doesn't supervise it: run doit"
    )


@dataclass
class Scene:
    """One workspace; `settings` are written anew by `tell`."""

    folder: Path
    gpus: int = 1
    token: str = ""
    jobs_token: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    servers: dict[int, Server] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        first = free_ports(self.gpus + 1)
        self.layout = Layout(self.folder / "ws")
        self.layout.apps.mkdir(parents=True)
        self.layout.logs.mkdir()
        for gpu in range(self.gpus):
            self.layout.instance(gpu).mkdir(parents=True)
        self.installation = Installation(SIMULATOR, sys.executable, PATIENCE, self.folder)
        self.port = first + self.gpus
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = {
            "workspace": str(self.layout.workspace),
            "machine_file": str(self.folder / "machine.yaml"),
            "lock_file": str(self.folder / "machine.lock"),
            "listen": "127.0.0.1",
            "port": self.port,
            "enabled": True,
            "pinned": False,
            "instances": [
                {"gpu": gpu, "name": f"comfyui-gpu{gpu}", "listen": "127.0.0.1",
                 "port": first + gpu, "whole": False}
                for gpu in range(self.gpus)
            ],
            "workers": [],
            "comfyui": {"name": "ComfyUI", "path": str(SIMULATOR)},
            "nodes": [],
            "selected": None,
            "models": [],
            "models_folder": str(self.folder / "models"),
            "store": str(self.folder / "models" / ".store"),
            "restarts": False,
            "start_timeout": 60,
            "job_timeout": 3600,
            "warmup": None,
            "canary": None,
            "canary_every": 300,
        } | self.settings  # fmt: skip

    @property
    def file(self) -> Path:
        return self.layout.apps / "health-server.json"

    def tell(self, **changes: Any) -> None:
        """Write the settings, as a run does."""
        self.settings |= changes
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self.settings))
        part.replace(self.file)

    def serve(self) -> None:
        """Start the health server, and wait until it answers."""
        self.tell()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-m", "comfy_machine.services.health", str(self.file)],
            env=os.environ | {"HEALTH_TOKEN": self.token, "JOBS_TOKEN": self.jobs_token},
            stdout=(self.folder / "server.log").open("wb"),
            stderr=subprocess.STDOUT,
        )
        until(lambda: self.answers() or self.ended, PATIENCE, "the health server")
        assert not self.ended, self.said

    @property
    def said(self) -> str:
        return (self.folder / "server.log").read_text()

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/livez", timeout=PATIENCE).ok
        except requests.ConnectionError:
            return False

    def start(self, gpu: int = 0, **env: str) -> Server:
        """Start an instance, marked as PM2 would have it, and wait until it answers."""
        base = self.servers[gpu].base if gpu in self.servers else self.base(gpu)
        port = self.settings["instances"][gpu]["port"]
        reports = self.layout.reports(gpu)
        shim = [sys.executable, "-I", str(SERVICES / "shim.py"), "--report", str(reports), "--"]
        # What an environment of a machine has as a .pth file.
        (self.folder / "sitecustomize.py").write_text(pth_hook.LINE)
        marks = self.marks(gpu) | {"PYTHONPATH": str(self.folder)}
        server = self.installation.launch(base, port=port, env=marks | env, before=shim)
        self.servers[gpu] = server
        self.note(gpu, server.process.pid)
        log = self.layout.log(self.settings["instances"][gpu]["name"])
        log.unlink(missing_ok=True)
        log.symlink_to(server._log)
        return self.installation.wait(server)

    def marks(self, gpu: int) -> dict[str, str]:
        """The environment by which an instance is known."""
        instance = self.settings["instances"][gpu]
        return {
            apps.WORKSPACE: str(self.layout.workspace),
            apps.NAME: instance["name"],
            apps.PORT: str(instance["port"]),
            "PYTHONUNBUFFERED": "1",
        }

    def note(self, gpu: int, pid: int) -> None:
        """As PM2 does, which is how it is seen that one came."""
        pids = private_folder.make(self.layout.workspace) / "pids"
        pids.mkdir(exist_ok=True)
        (pids / f"{self.settings['instances'][gpu]['name']}-{pid}.pid").write_text(str(pid))

    def base(self, gpu: int = 0) -> Base:
        """The folder in which an instance has its nodes and models."""
        path = self.folder / f"gpu{gpu}"
        if path.exists():
            found = Base.__new__(Base)
            found.path = path
            return found
        return Base(path)

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=PATIENCE, **options)

    def told(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(path).json()
        return found

    def instance(self, gpu: int = 0) -> dict[str, Any]:
        return self.told(f"/health/comfyui/instances/{gpu}")

    def wait(self, condition: Callable[[], object]) -> None:
        until(condition, PATIENCE, f"it to be so: {self.said}")

    def until(self, condition: Callable[[Told], object], gpu: int = 0) -> Told:
        """Wait until an instance is shown so."""
        last: dict[str, Any] = {}

        def look() -> bool:
            nonlocal last
            last = self.instance(gpu)
            return bool(condition(last))

        try:
            until(look, PATIENCE, "an instance to be shown so")
        except AssertionError:
            raise AssertionError(f"never so, at last: {last}\n{self.said}") from None
        return last

    def close(self) -> None:
        if self.process is not None and not self.ended:
            self.process.send_signal(signal.SIGINT)
            assert self.process.wait(PATIENCE) == 0, self.said
        for server in self.servers.values():
            if not server.ended:
                server.process.send_signal(signal.SIGCONT)
        self.installation.close()
        shutil.rmtree(private_folder.folder(self.layout.workspace), ignore_errors=True)

    def raw(self, content: bytes, timeout: float = PATIENCE) -> bytes:
        """What comes back for bytes of any kind, until the server hangs up or falls silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout) as connection:
            connection.sendall(content)
            try:
                return connection.recv(65536)
            except ConnectionError:
                return b""
