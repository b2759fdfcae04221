"""Who holds a port."""

from __future__ import annotations

from dataclasses import dataclass

from . import process


@dataclass(frozen=True)
class Holder:
    """A process that listens on a port; pid None: it belongs to another user."""

    port: int
    pid: int | None

    def __str__(self) -> str:
        if self.pid is None:
            return f"port {self.port} is held by a process of another user"
        command = process.command_of(self.pid)
        return (
            f"port {self.port} is held by pid {self.pid} ({command[:200] if command else 'gone'})"
        )


def holders() -> dict[int, Holder]:
    """Who listens on which TCP port, on any address."""
    import psutil

    return {
        connection.laddr.port: Holder(connection.laddr.port, connection.pid)
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr
    }
