"""The network that tests cut: places reach each other, and while one is cut off nobody is told."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.services.jobs.namespaces import HERE, Impossible, Network, network


@pytest.fixture
def net() -> Iterator[Network]:
    with ExitStack() as stack:
        try:
            yield stack.enter_context(network())
        except Impossible as why:
            pytest.skip(str(why))


def test_what_is_sent_while_a_place_is_cut_off_comes_when_it_has_joined_again(net: Network) -> None:
    here = Path(HERE).readlink()
    one, two = net.place(), net.place()
    with one.inside():
        listener = socket.create_server((one.address, 7))
    with two.inside():
        asking = socket.create_connection((one.address, 7), 10)
    answering, _ = listener.accept()
    with listener, asking, answering:
        for each in (asking, answering):
            each.settimeout(0.5)
        two.cut()
        asking.sendall(b"hello")
        with pytest.raises(TimeoutError):
            answering.recv(5)
        with two.inside(), pytest.raises(TimeoutError):
            socket.create_connection((one.address, 7), 0.5)
        two.join()
        answering.settimeout(20)
        assert answering.recv(5) == b"hello"
    assert Path(HERE).readlink() == here


def test_nothing_of_it_is_left_or_seen_outside() -> None:
    before = {path.name for path in Path("/sys/class/net").iterdir()}
    descriptors = len([*Path("/proc/self/fd").iterdir()])
    try:
        with network() as net:
            net.place()
            assert {path.name for path in Path("/sys/class/net").iterdir()} == before
    except Impossible as why:
        pytest.skip(str(why))
    assert len([*Path("/proc/self/fd").iterdir()]) == descriptors
