"""`python -m comfy_machine.services.health FILE`: serves until a signal ends it.

FILE has the settings.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import uvicorn

from ...host.comfyui import health_client
from ...host.system import files
from .sampling.sampler import Sampler
from .web import endpoints
from .web.protocol import Protocol

OPEN_FILES = 8192
CONNECTIONS = 2048
"""At once; a further connection replaces the one that has been idle longest."""
SHUTDOWN_TIMEOUT = 1
"""Seconds that clients following the events have when the server ends."""


def main(file: Path) -> None:
    # A line may quote an instance, and the encoding of our log is unknown.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard), hard))
    connections = min(CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
    sampler = Sampler(file)
    # Waiting clients must leave connections for those that are answered at once.
    sampler.board.most_waiting = min(sampler.board.most_waiting, connections // 4)
    sockets = [_listen(host, sampler.settings.port) for host in sampler.settings.listen.split(",")]
    ready = file.with_suffix(".ready.json")
    application = endpoints.make(
        sampler,
        os.environ.get("HEALTH_TOKEN", ""),
        lambda: files.write_receipt(ready, {"pid": os.getpid()}),
    )
    config = uvicorn.Config(
        application,
        http=Protocol,
        loop="uvloop",
        ws="none",
        access_log=False,
        log_level="error",
        server_header=False,
        headers=[("Server", health_client.name(sampler.settings.workspace))],
        proxy_headers=False,
        limit_concurrency=connections,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
    )
    with suppress(KeyboardInterrupt):
        Server(config, sampler.board.end).run(sockets=sockets)


class Server(uvicorn.Server):
    """Disconnects waiting clients when it ends; uvicorn only waits for them."""

    def __init__(self, config: uvicorn.Config, end: Callable[[], None]) -> None:
        super().__init__(config)
        self._end = end

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._end()


def _listen(host: str, port: int) -> socket.socket:
    """Raises OSError when the port is taken or the address isn't this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host.strip("[]"), port), family=family, backlog=1024)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
