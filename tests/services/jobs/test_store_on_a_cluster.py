"""The store on three servers, of which one is cut off from the others: it tells nothing old."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import nats
import pytest
from nats.errors import Error
from nats.js import JetStreamContext

from comfy_machine.services.jobs.job_store import RECORDS, Store, reach
from comfy_machine.services.jobs.record import Record
from tests.services.jobs.fleet import Servers
from tests.services.jobs.namespaces import Impossible, Place, network

T = TypeVar("T")


class Reader:
    """A client at a place, of these servers alone."""

    def __init__(self, place: Place, url: str, stack: ExitStack) -> None:
        self._place = place
        self._loop = asyncio.new_event_loop()
        stack.callback(self._loop.close)
        self.client = self.asked(nats.connect(url.split(","), max_reconnect_attempts=-1))
        self.stream: JetStreamContext = self.client.jetstream(timeout=2)
        self.store: Store = self.asked(reach(self.stream, 3))
        stack.callback(lambda: self.asked(self.client.close()))

    def asked(self, question: Coroutine[Any, Any, T]) -> T:
        with self._place.inside():
            return self._loop.run_until_complete(question)


@dataclass
class Alone:
    """A server that can be cut off from the two others, and a client of it who is there too."""

    place: Place
    reader: Reader


def alone(folder: Path, stack: ExitStack, *, leads: bool) -> tuple[Alone, Record]:
    """One of three that leads the jobs, or another; with a job that it knows."""
    try:
        net = stack.enter_context(network())
    except Impossible as why:
        pytest.skip(str(why))
    places = [net.place() for _ in range(3)]
    servers = Servers(folder, places)
    stack.callback(servers.kill)
    reader = Reader(net.place(), servers.url, stack)
    record = Record(id=str(uuid4()), submitted=1.0)
    assert reader.asked(reader.store.create(record, b"{}"))
    about = reader.asked(reader.stream.stream_info(f"KV_{RECORDS}")).cluster
    assert about
    place = next(each for each in places if (servers.name(each) == about.leader) is leads)
    found = Alone(place, Reader(place, servers.url_at(place), stack))
    assert found.reader.asked(found.reader.store.read(record.id))
    found.reader.asked(found.reader.store.prove())
    return found, record


def test_a_server_that_is_cut_off_tells_nothing_old(tmp_path: Path) -> None:
    with ExitStack() as stack:
        cut, record = alone(tmp_path, stack, leads=False)
        cut.place.cut()
        # It asks others of them too, which don't hear it.
        for _ in range(5):
            with pytest.raises(Error):
                cut.reader.asked(cut.reader.store.read(record.id))


def test_one_that_led_is_known_for_cut_off_by_a_write_alone(tmp_path: Path) -> None:
    with ExitStack() as stack:
        cut, _ = alone(tmp_path, stack, leads=True)
        cut.place.cut()
        with pytest.raises(Error):
            cut.reader.asked(cut.reader.store.prove())
        assert cut.reader.asked(cut.reader.stream.stream_info(f"KV_{RECORDS}"))
