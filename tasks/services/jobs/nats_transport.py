"""The bytes between us and a NATS server, with two promises that nats-py's own transport lacks."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import ParseResult

from nats.aio.transport import TcpTransport
from nats.errors import Error


class NatsTransport(TcpTransport):
    """A connection that a network which swallows all ends, and that says nothing in the clear to a
    server that is to be spoken to by TLS."""

    def __init__(self, silence: float, *, tls: bool) -> None:
        """`silence` is how many seconds what we sent may go without an answer of the other system:
        nats-py waits for these bytes before it goes elsewhere, and the kernel for 15 minutes. `tls`
        asks for TLS whatever the URL says."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._silence, self._tls = silence, tls
        self._in_clear = False

    def __bool__(self) -> bool:
        # Where this is false, nats-py takes a transport of its own.
        return True

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Connect. Raises OSError and asyncio.TimeoutError."""
        if self._io_writer is not None:
            # nats-py leaves one open that a server took and then said nothing to.
            self._io_writer.transport.abort()
        await super().connect(uri, buffer_size, connect_timeout)
        self._in_clear = self._tls or uri.scheme == "tls"
        assert self._io_writer
        self._io_writer.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._silence * 1000)
        )

    async def connect_tls(
        self,
        uri: str | ParseResult,
        ssl_context: ssl.SSLContext,
        buffer_size: int,
        connect_timeout: int,
    ) -> None:
        """Go on by TLS, which nats-py does where the server asks for it."""
        await super().connect_tls(uri, ssl_context, buffer_size, connect_timeout)
        self._in_clear = False

    def write(self, payload: bytes) -> None:
        """Raises nats.errors.Error where it should be by TLS: the first that we say has the
        credentials."""
        self._refuse_in_clear()
        super().write(payload)  # type: ignore[no-untyped-call]

    def writelines(self, payload: list[bytes]) -> None:
        """Raises nats.errors.Error as `write` does."""
        self._refuse_in_clear()
        super().writelines(payload)  # type: ignore[no-untyped-call]

    def _refuse_in_clear(self) -> None:
        if self._in_clear:
            raise Error("the server doesn't ask for TLS")
