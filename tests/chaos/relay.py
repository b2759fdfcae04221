"""A relay between doit and its servers, on the loopback interface, that may be as bad as networks
are."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

FAULTS = ("refused", "silent", "busy", "a portal", "cut", "slow", "garbled")
SILENCE = 2.0
"""Seconds until a silent connection is reset."""
PORTAL = b"<html><body>Please accept the terms of this network</body></html>"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
WELCOME = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(PORTAL), PORTAL)
)
PIECE = 4096
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER's value with which a close resets the connection."""


class Relay:
    """One address for one server. `fault` befalls a connection with likelihood `chance`."""

    def __init__(self, listener: socket.socket, port: int) -> None:
        self._listener, self._port = listener, port
        self._random = random.Random(0)
        self.fault = ""
        self.chance = 1.0

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        fault = self.fault if self._random.random() < self.chance else ""
        with client, contextlib.suppress(OSError):
            if fault in ("busy", "a portal"):
                client.recv(1 << 16)
                client.sendall(BUSY if fault == "busy" else WELCOME)
            elif fault in ("refused", "silent"):
                time.sleep(SILENCE if fault == "silent" else 0)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            else:
                with socket.create_connection(("127.0.0.1", self._port)) as server:
                    asks = threading.Thread(target=_pump, args=(client, server), daemon=True)
                    asks.start()
                    self._answer(server, client, fault)

    def _answer(self, server: socket.socket, client: socket.socket, fault: str) -> None:
        left = int(10 ** self._random.uniform(1, 5.5))
        while piece := server.recv(PIECE):
            if fault == "slow":
                time.sleep(0.1)
            if fault == "garbled" and left < len(piece):
                piece = piece[:left] + bytes(each ^ 0x55 for each in piece[left:])
            if fault == "cut" and left < len(piece):
                client.sendall(piece[:left])
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return
            left = max(0, left - len(piece))
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def relay(port: int) -> Iterator[Relay]:
    """A relay to a server on this port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = Relay(listener, port)
        thread = threading.Thread(target=found.serve)
        thread.start()
        try:
            yield found
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
