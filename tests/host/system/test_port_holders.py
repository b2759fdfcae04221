"""Who holds a port: real listeners."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from comfy_machine.host.system import port_holders

LISTEN = (
    "import socket, sys; s = socket.socket(getattr(socket, sys.argv[1])); "
    "s.bind((sys.argv[2], 0)); s.listen(); print(s.getsockname()[1], flush=True); "
    "sys.stdin.read()"
)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


@pytest.mark.parametrize(
    ("family", "address"),
    [
        ("AF_INET", "127.0.0.1"),
        ("AF_INET", "0.0.0.0"),
        pytest.param("AF_INET6", "::1", marks=ipv6),
        pytest.param("AF_INET6", "::", marks=ipv6),
    ],
)
def test_a_holder_is_named_with_pid_and_command(family: str, address: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN, family, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as stranger:
        assert stranger.stdout is not None
        port = int(stranger.stdout.readline())
        held = port_holders.holders().get(port)
        assert held is not None
        assert (held.port, held.pid) == (port, stranger.pid)
        assert " -c import socket" in str(held)
        assert str(held).startswith(f"port {port} is held by pid {stranger.pid} ({sys.executable}")
        stranger.communicate()
    assert port_holders.holders().get(port) is None


def test_a_port_that_is_bound_or_connected_to_but_not_listened_on_is_free() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert client.getsockname()[1] not in port_holders.holders()
        held = port_holders.holders().get(server.getsockname()[1])
        assert held is not None
        assert held.pid == os.getpid()
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert bound.getsockname()[1] not in port_holders.holders()


def test_a_holder_that_the_kernel_hides_is_somebody_elses() -> None:
    assert str(port_holders.Holder(80, None)) == "port 80 is held by a process of another user"
