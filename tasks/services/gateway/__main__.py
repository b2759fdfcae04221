"""`python -m comfy_machine.services.gateway FILE`: serves until a signal ends it.

FILE has the settings; JOBS_TOKEN in the environment is what clients must send.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

import uvicorn

from ...host.system import files
from .gateway_app import application
from .gateway_settings import GatewaySettings
from .job_desk import JobDesk
from .patient_protocol import PatientProtocol

TOKEN = "JOBS_TOKEN"
OPEN_FILES = 16384
CONNECTIONS = 4096
"""At once; further ones are refused."""
LONGEST_MESSAGE = 65536
"""Bytes that a client may send at once over a WebSocket; it says little there."""
SHUTDOWN_TIMEOUT = 2
"""Seconds that clients following jobs have when the gateway ends."""


def main(file: Path) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard), hard))
    connections = min(CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3)
    settings = GatewaySettings.read(file)
    sockets = [_listen(host, settings.port) for host in settings.listen.split(",")]
    ready = file.with_suffix(".ready.json")
    desk = JobDesk(settings.jobs)
    app = application(
        desk,
        os.environ.pop(TOKEN, ""),
        lambda: files.write_receipt(ready, {"pid": os.getpid(), "port": settings.port}),
    )
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        loop="uvloop",
        ws_max_size=LONGEST_MESSAGE,
        access_log=False,
        log_level="error",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=connections,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
    )
    with suppress(KeyboardInterrupt):
        Server(config, desk).run(sockets=sockets)


class Server(uvicorn.Server):
    """Lets clients go that follow jobs when it ends; uvicorn only waits for them."""

    def __init__(self, config: uvicorn.Config, desk: JobDesk) -> None:
        super().__init__(config)
        self._desk = desk
        self._loop: asyncio.AbstractEventLoop | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._desk.view.end)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)


def _listen(host: str, port: int) -> socket.socket:
    """Raises OSError when the port is taken or the address isn't this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host.strip("[]"), port), family=family, backlog=1024)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
