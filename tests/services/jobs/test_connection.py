"""The connection to NATS where somebody else answers at the server's address."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from comfy_machine.services.jobs import connection
from comfy_machine.services.jobs.job_settings import Settings, Tls
from tests.contract.client import until
from tests.services.jobs.conftest import Server
from tests.services.jobs.namespaces import Impossible, network

GREETING = b'INFO {"server_id":"other","version":"2.11.0","max_payload":1048576,"proto":1}\r\n'


class Impostor:
    """Greets as a NATS server without TLS does, at the address of another that ended."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(20)

    def hears(self) -> bytes:
        """What the next client says until it leaves."""
        client, _ = self._listener.accept()
        with client:
            client.settimeout(20)
            client.sendall(GREETING)
            return client.recv(1 << 16)

    def close(self) -> None:
        self._listener.close()


class Encrypted:
    """A server that asks for TLS, and the settings of its clients."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
        authority.cert_pem.write_to_path(folder / "ca.pem")
        self.ca = str(folder / "ca.pem")
        self.server = Server(
            folder,
            f'tls {{ cert_file: "{folder / "cert.pem"}", key_file: "{folder / "key.pem"}" }}\n'
            'authorization { token: "sesame" }\n',
        )

    def settings(self, folder: Path, scheme: str) -> Settings:
        url = f"{scheme}://127.0.0.1:{self.server.port}"
        return Settings(folder, "here", url, tls=Tls(ca=self.ca) if scheme == "nats" else None)


@pytest.mark.parametrize("scheme", ["nats", "tls"])
def test_who_was_promised_tls_says_nothing_in_the_clear_at_a_reconnection(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encrypted = Encrypted(tmp_path)
    monkeypatch.setenv(connection.CREDENTIALS, "sesame")
    monkeypatch.setenv("SSL_CERT_FILE", encrypted.ca)

    async def connecting() -> None:
        client = await connection.connect(encrypted.settings(tmp_path, scheme), "test")
        await client.flush()
        encrypted.server.kill()
        impostor = Impostor(encrypted.server.port)
        try:
            for _ in range(2):
                assert await asyncio.to_thread(impostor.hears) == b""
        finally:
            impostor.close()
        await asyncio.to_thread(encrypted.server.start)
        await asyncio.to_thread(until, lambda: client.is_connected, 20, "the connection")
        await client.flush()
        await connection.close(client)

    try:
        asyncio.run(connecting())
    finally:
        encrypted.server.kill()


def test_what_a_server_that_is_cut_off_was_sent_holds_nobody_up(tmp_path: Path) -> None:
    with ExitStack() as stack:
        try:
            net = stack.enter_context(network())
        except Impossible as why:
            pytest.skip(str(why))
        places = {each.address: each for each in (net.place(), net.place())}
        urls = []
        for address, place in places.items():
            folder = tmp_path / address
            folder.mkdir()
            with place.inside():
                server = Server(folder, host=address)
            stack.callback(server.kill)
            urls.append(server.url)
        stack.enter_context(net.place().inside())

        async def sending() -> None:
            settings = Settings(tmp_path, "here", ",".join(urls))
            client = await connection.connect(settings, "test")
            assert client.connected_url
            first = str(client.connected_url.hostname)
            places[first].cut()
            # More than the kernel takes.
            sent = asyncio.ensure_future(client.publish("pictures", bytes(1_000_000)))
            while not client.connected_url or client.connected_url.hostname == first:
                await asyncio.sleep(0.05)
            await client.flush()
            await sent
            await connection.close(client)

        asyncio.run(asyncio.wait_for(sending(), 60))
