"""Who holds a port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Holder:
    """A process that listens on a port; pid None when the kernel won't tell (another user's)."""

    port: int
    pid: int | None
    command: str

    def __str__(self) -> str:
        who = f"pid {self.pid} ({self.command})" if self.pid else "a process of another user"
        return f"port {self.port} is held by {who}"


def holder(port: int) -> Holder | None:
    """Who listens on TCP `port` on any address, None when it is free."""
    import psutil

    for connection in psutil.net_connections("tcp"):
        if connection.status != psutil.CONN_LISTEN or not connection.laddr:
            continue
        if connection.laddr.port != port:
            continue
        if connection.pid is None:
            return Holder(port, None, "")
        return Holder(port, connection.pid, _command(connection.pid))
    return None


def _command(pid: int) -> str:
    import psutil

    try:
        process = psutil.Process(pid)
        return " ".join(process.cmdline())[:200] or process.name()
    except psutil.Error:
        return "gone"
