"""A real NATS server with JetStream, which tests end and start again."""

from __future__ import annotations

import signal
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.client import until
from tests.rig import free_ports


class Server:
    """One server; its store outlives it."""

    def __init__(
        self, folder: Path, more: str = "", host: str = "127.0.0.1", port: int | None = None
    ) -> None:
        """`more` is added to its config."""
        self._host, self.port = host, port or free_ports(1)
        self._config = folder / "nats.conf"
        self._config.write_text(
            f"listen: {host}:{self.port}\n"
            f'jetstream {{ store_dir: "{folder / "store"}", sync_interval: always }}\n{more}'
        )
        self._log = folder / "nats.log"
        self.start()

    @property
    def url(self) -> str:
        return f"nats://{self._host}:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self) -> None:
        program = Path(sysconfig.get_path("scripts"), "nats-server")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([program, "-c", self._config], stderr=log)
        until(self._answers, 30, "the server")

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def end(self) -> None:
        """End it in order."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self._host, self.port), 1) as connection:
                return connection.recv(4) == b"INFO"
        except OSError:
            return False


class Cluster(Server):
    """Three servers; the first one is the one to kill."""

    def __init__(self, folder: Path) -> None:
        routes = free_ports(3)
        names = ("one", "two", "three")
        self.all: list[Server] = []
        for number, name in enumerate(names):
            home = folder / name
            home.mkdir()
            known = ", ".join(f"nats://127.0.0.1:{routes + each}" for each in range(3))
            more = (
                f"server_name: {name}\n"
                f"cluster {{ name: jobs, listen: 127.0.0.1:{routes + number}, "
                f"routes: [{known}] }}\n"
            )
            self.all.append(Server(home, more))

    @property
    def url(self) -> str:
        return ",".join(each.url for each in self.all)

    def kill(self) -> None:
        for each in self.all:
            each.kill()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    it = Cluster(tmp_path)
    try:
        yield it
    finally:
        it.kill()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    it = Server(tmp_path)
    try:
        yield it
    finally:
        it.kill()
