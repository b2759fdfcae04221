"""What an instance may answer: each call of ours ends in time, and as its docstring says."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from comfy_machine.host.comfyui import api
from comfy_machine.host.system.failure import Failure
from comfy_machine.services.health.sampling import canary
from tests.chaos.machines import Stuck, Victims
from tests.host.comfyui.test_api import pouring

TIMEOUT = 0.5
"""Seconds that each call is given."""
GRACE = 20.0
"""Seconds more: 16 MB may come in the time, and are read as JSON then."""
MOST_MEMORY = 2 << 30
"""Bytes that this process may have had at most."""

HEADS = {
    "no head": b"",
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
    "a head without end": b"HTTP/1.1 200 OK\r\nX: ",
    "100 without end": b"HTTP/1.1 100 Continue\r\n\r\n",
    "200": b"HTTP/1.1 200 OK\r\n\r\n",
    "200 in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "200 of wrong length": b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
    "200 of no length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "200 packed": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
    "302": b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n",
    "400": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "500": b"HTTP/1.1 500 \xff\xfe\r\n\r\n",
}
DROPS = {
    "nothing": b"",
    "zeros": bytes(65536),
    "brackets": b"[" * 65536,
    "braces": b'{"a":' * 13000,
    "numbers": b"1," * 32768,
    "digits": b"9" * 65536,
    "lines": b"\r\n" * 32768,
    "chunks": b"4\r\nabcd\r\n" * 7000,
}
CALLS: dict[str, Callable[[int], object]] = {
    "probe": lambda port: api.probe("127.0.0.1", port, TIMEOUT),
    "object_info": lambda port: api.ask("127.0.0.1", port, "/object_info", TIMEOUT),
    "get": lambda port: _client(port).get("/queue"),
    "submit": lambda port: _client(port).submit({}),
    "delete": lambda port: _client(port).delete("x"),
    "done": lambda port: _client(port).done("x"),
    "canary": lambda port: canary.run(_client(port), {}, canary.Schedule(300.0, 1.0, 1.0)),
}


def _client(port: int) -> api.Client:
    return api.Client("127.0.0.1", port, timeout=TIMEOUT)


@dataclass(frozen=True)
class Answered:
    """One call, and an answer that goes on as long as anybody listens."""

    call: str
    head: str
    drop: str
    pause: float
    """Seconds between two parts of it."""

    @property
    def kind(self) -> str:
        return f"an answer to {self.call}"

    def __str__(self) -> str:
        return f"{self.call} is answered {self.head}, then {self.drop} every {self.pause:g} s"

    def do(self, victims: Victims, chance: random.Random) -> str:
        """How it ended. Raises Stuck."""
        begin, how = time.monotonic(), "a value"
        with pouring(HEADS[self.head], DROPS[self.drop], self.pause) as port:
            try:
                CALLS[self.call](port)
            except (OSError, Failure) as error:
                how = type(error).__name__
            except Exception as error:
                raise Stuck(f"it raised {error!r}") from error
        took = time.monotonic() - begin
        if took > TIMEOUT + GRACE:
            raise Stuck(f"it took {took:.1f} s, {TIMEOUT:g} s were given")
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10 > MOST_MEMORY:
            raise Stuck("this process took more memory than all answers together may")
        return how


def cases(chance: random.Random) -> Iterator[Answered]:
    """Without end."""
    while True:
        call, head, drop = (chance.choice(list(each)) for each in (CALLS, HEADS, DROPS))
        yield Answered(call, head, drop, chance.choice([0.0, 0.0, 0.1]))
