"""A gateway in a process of its own, before a real NATS server and a double of the workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.contract.client import until
from tests.rig import free_ports
from tests.services.gateway.double_of_workers import Workers
from tests.services.jobs.conftest import Server, server

__all__ = ["server"]


class Gateway:
    """One process; `settings` are more than it needs."""

    def __init__(
        self, folder: Path, url: str, token: str = "", *, wait: bool = True,
        env: dict[str, str] | None = None, **settings: Any,
    ) -> None:  # fmt: skip
        self.port = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.workspace = folder / "ws"
        self._file = folder / "gateway.json"
        self._file.write_text(
            json.dumps(
                {"workspace": str(self.workspace), "machine": "machine", "url": url}
                | {"port": self.port, **settings}
            )
        )
        self.ready = folder / "gateway.ready.json"
        self._environment = {"PATH": os.environ["PATH"]} | ({"JOBS_TOKEN": token} if token else {})
        self._environment |= env or {}
        self._log = folder / "gateway.log"
        self.start(wait=wait)
        self.session = requests.Session()
        self.session.trust_env = False
        if token:
            self.session.headers["Authorization"] = f"Bearer {token}"

    def start(self, *, wait: bool = True) -> None:
        self.ready.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", "comfy_machine.services.gateway", self._file],
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        if wait:
            until(self.ready.exists, 30, "the gateway")

    def end(self, how: int = signal.SIGTERM) -> int:
        self._process.send_signal(how)
        return self.wait()

    def wait(self) -> int:
        """Its exit status."""
        return self._process.wait(20)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def ask(self, method: str, path: str, **about: Any) -> requests.Response:
        return self.session.request(method, self.url + path, timeout=20, **about)

    def submit(self, workflow: Any, code: int = 201, **about: Any) -> Any:
        """The job's answer, or that of the refusal."""
        headers = about.pop("headers", None)
        answer = self.ask(
            "POST", "/api/v2/jobs", json={"workflow": workflow, **about}, headers=headers
        )
        assert answer.status_code == code, answer.text
        return answer.json()

    def job(self, job: str, wait: float = 0) -> Any:
        answer = self.ask("GET", f"/api/v2/jobs/{job}", params={"wait": wait})
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def gateway(server: Server, tmp_path: Path) -> Iterator[Gateway]:
    it = Gateway(tmp_path, server.url)
    try:
        yield it
    finally:
        it.end()
        assert not it.log, it.log[-3000:]


@pytest.fixture
def workers(server: Server, gateway: Gateway) -> Iterator[Workers]:
    it = Workers(server.url, gateway.workspace)
    try:
        yield it
    finally:
        it.end()


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


SAVE = {"9": node("Save")}
