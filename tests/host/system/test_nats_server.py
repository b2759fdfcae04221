"""What real NATS servers say, and those that say nothing."""

from __future__ import annotations

import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from comfy_machine.host.system import nats_server
from comfy_machine.host.system.nats_server import Account
from tests.contract.client import until
from tests.rig import free_ports


@contextmanager
def server(port: int, *arguments: str) -> Iterator[str]:
    """The URL of a server that answers."""
    program = Path(sysconfig.get_path("scripts"), "nats-server")
    words = [str(program), "-a", "127.0.0.1", "-p", str(port), *arguments]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: nats_server.answers(port), 30, "the server")
            yield f"nats://127.0.0.1:{port}"
        finally:
            process.kill()


def test_it_is_told_whether_jobs_can_be_kept_there(tmp_path: Path) -> None:
    port = free_ports(2)
    gone = f"nats://127.0.0.1:{port + 1}"
    assert not nats_server.answers(port)
    assert nats_server.refusal(Account(gone)) == "Connection refused"
    store = ("-js", "-sd", str(tmp_path / "store"), "--auth", "sesame")
    with server(port, *store) as url:
        assert nats_server.refusal(Account(url, "sesame")) is None
        assert nats_server.refusal(Account(f"{gone},{url}", "sesame")) is None, "one is enough"
        assert nats_server.refusal(Account(url)) == "Authorization Violation"
    with server(port) as url:
        assert nats_server.refusal(Account(url)) == "it has no JetStream: start it with --jetstream"


def test_with_tls_the_server_must_ask_for_it_and_be_signed_by_whom_we_trust(tmp_path: Path) -> None:
    ours, others = trustme.CA(), trustme.CA()
    cert = ours.issue_cert("127.0.0.1")
    cert.private_key_pem.write_to_path(tmp_path / "key.pem")
    cert.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    ours.cert_pem.write_to_path(tmp_path / "ours.pem")
    others.cert_pem.write_to_path(tmp_path / "others.pem")
    names = {"--tlscert": "cert.pem", "--tlskey": "key.pem"}
    files = [word for flag, name in names.items() for word in (flag, str(tmp_path / name))]
    store = ("-js", "-sd", str(tmp_path / "store"))
    port = free_ports(1)
    with server(port, *store, "--tls", *files) as url:
        assert nats_server.refusal(Account(url, tls={"ca": str(tmp_path / "ours.pem")})) is None
        wrong = nats_server.refusal(Account(url, tls={"ca": str(tmp_path / "others.pem")}))
        assert wrong
        assert "certificate verify failed" in wrong
        assert "\n" not in wrong
        missing = nats_server.refusal(Account(url, tls={"ca": "/nowhere.pem"}))
        assert missing == "No such file or directory"
    with server(port, *store) as url:
        told = nats_server.refusal(Account(url, tls={"ca": str(tmp_path / "ours.pem")}))
        assert told == f"{url} doesn't ask for TLS"


def test_a_stranger_at_the_port_is_no_nats_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_server, "TIMEOUT", 0.5)
    monkeypatch.setattr(nats_server, "NEARBY", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert not nats_server.answers(port)
        assert nats_server.refusal(Account(f"nats://127.0.0.1:{port}")) == "no answer came"


def test_credentials_are_in_no_repr() -> None:
    assert "sesame" not in repr(Account("nats://a", "sesame"))
