"""Downloads from servers that do all that servers do: the right bytes, or one clear Failure."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from comfy_machine.host.downloads import download as module
from comfy_machine.host.downloads.download import download
from comfy_machine.host.downloads.download_request import Downloaded, DownloadRequest
from comfy_machine.host.downloads.partial_file import opened
from comfy_machine.host.downloads.web import HOST_CONNECTIONS, Tolerance, Web
from comfy_machine.host.storage.disk_space import SPARE, DiskSpace
from comfy_machine.host.system.failure import Failure
from comfy_machine.host.system.progress import Progress
from tests.model_server import Asked, ModelServer, Ways, model_server, noise, safetensors, until
from tests.rig import PROJECT

FIRST = 64 << 10
SIZE = 20 * FIRST + 123
MODEL = safetensors(SIZE)
OTHER = safetensors(SIZE, seed=1)
QUICK = Tolerance(connect=5, read=0.3, slowest=100, backoff=0.002)
PATH = "/models/a.safetensors"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """A server of MODEL, and downloads that take even that for a large file."""
    monkeypatch.setattr(module, "FIRST", FIRST)
    monkeypatch.setattr(module, "LONGEST_SPAN", FIRST)
    monkeypatch.setattr(module, "RESET_AFTER", FIRST // 2)
    with model_server() as server:
        server.content[PATH] = MODEL
        yield server


@dataclass
class Client:
    """Downloads into a folder; what is complete is called `final`."""

    server: ModelServer
    folder: Path
    tolerance: Tolerance = QUICK
    label: str = "a.safetensors"
    progress: Progress = field(default_factory=lambda: Progress("models"))

    @property
    def final(self) -> Path:
        return self.folder / "final"

    def get(
        self, sha256: str | None = None, size: int | None = None, path: str = PATH
    ) -> Downloaded:
        wanted = DownloadRequest(self.label, self.server.url + path, sha256, size)
        with opened(self.folder / "name.part", sha256 is not None) as part:
            web, space = Web(tolerance=self.tolerance), DiskSpace(self.folder)
            got = download(wanted, part, web, space, self.progress)
            part.keep(self.final)
        return got


@pytest.fixture
def client(server: ModelServer, tmp_path: Path) -> Client:
    return Client(server, tmp_path)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def asked_bytes(ranges: list[str | None], size: int) -> list[int]:
    """Every position that was asked for."""
    spans = [each.removeprefix("bytes=").split("-") for each in ranges if each]
    return [at for start, end in spans for at in range(int(start), min(size, int(end) + 1))]


def test_a_file_is_fetched_by_ranges_each_byte_once(client: Client) -> None:
    got = client.get()
    count = client.server.counts[PATH]
    assert client.final.read_bytes() == MODEL
    assert (got.sha256, got.size) == (sha256(MODEL), len(MODEL))
    assert count.bytes == len(MODEL)
    assert sorted(asked_bytes(count.ranges, len(MODEL))) == list(range(len(MODEL)))
    assert [each.if_range for each in count.asked] == [None, *[got.version.etag] * 20]
    item = client.progress.items["a.safetensors"]
    assert (item.total, item.done, item.moved) == (len(MODEL),) * 3
    assert list(client.folder.iterdir()) == [client.final]


def test_a_small_file_takes_one_request(client: Client) -> None:
    client.server.content[PATH] = small = safetensors(1000)
    client.get(sha256(small))
    assert client.final.read_bytes() == small
    assert client.server.counts[PATH].requests == 1


def test_eight_ranges_run_at_once_and_never_more(client: Client) -> None:
    barrier = threading.Barrier(HOST_CONNECTIONS)

    def before(asked: Asked) -> None:
        if 2 <= asked.number <= 1 + HOST_CONNECTIONS:
            barrier.wait(10)

    client.tolerance = replace(QUICK, read=15)
    client.server.ways[PATH] = Ways(before=before)
    client.get()
    assert not barrier.broken
    assert client.final.read_bytes() == MODEL
    assert client.server.counts[PATH].peak == HOST_CONNECTIONS


def test_several_files_share_the_connections_to_their_host(client: Client) -> None:
    web, space = Web(tolerance=replace(QUICK, read=10)), DiskSpace(client.folder)
    paths = [f"/{number}" for number in range(3)]
    for path in paths:
        client.server.content[path] = MODEL
        client.server.ways[path] = Ways(pause=0.005)
    gots: list[Downloaded] = []

    def one(path: str) -> None:
        with opened(client.folder / f"{path[1:]}.part", True) as part:
            wanted = DownloadRequest(path, client.server.url + path)
            gots.append(download(wanted, part, web, space, client.progress))

    threads = [threading.Thread(target=one, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [got.sha256 for got in gots] == [sha256(MODEL)] * 3
    assert client.server.peak <= HOST_CONNECTIONS


GOOD_IN_THE_END = {
    "resets once": Ways(break_after=1000, breaks=1),
    "resets in each of the first answers": Ways(break_after=40_000, breaks=8),
    "resets at random": Ways(break_after=60_000, chance=0.3),
    "ends the connection early": Ways(break_after=10_000, how="close", breaks=6),
    "stalls": Ways(break_after=20_000, how="stall", breaks=2),
    "says its ranges are longer than they are": Ways(lie=500),
    "says nothing of its length, chunked": Ways(framing="chunked"),
    "breaks off chunks": Ways(framing="chunked", break_after=30_000, breaks=5),
    "breaks off chunks of the whole": Ways(
        framing="chunked", break_after=30_000, breaks=3, ranges="no"
    ),
    "ignores ranges": Ways(ranges="no"),
    "ignores ranges and resets": Ways(ranges="no", break_after=200_000, breaks=3),
    "has ranges for the first request only": Ways(ranges="once"),
    "answers with other ranges": Ways(ranges="wrong"),
    "answers with shorter ranges": Ways(ranges="short"),
    "answers with ranges that end before they begin": Ways(ranges="nonsense"),
    "refuses ranges": Ways(ranges="refused"),
    "has weak ETags": Ways(validators="weak"),
    "has weak ETags and resets": Ways(validators="weak", break_after=30_000, breaks=5),
    "has dates alone": Ways(validators="date", break_after=30_000, breaks=5),
    "has no validators": Ways(validators="none"),
    "has no validators and resets": Ways(validators="none", break_after=30_000, breaks=3),
    "has no validators, is slow, resets and changes": Ways(
        validators="none",
        piece=FIRST // 2,
        pause=0.003,
        break_after=9 * FIRST,
        breaks=2,
        later=MODEL,
        later_from=3,
    ),
    "is busy at every second request": Ways(busy_every=2),
    "is busy and says for how long": Ways(busy_every=3, retry_after="0"),
    "changes its file after the first range": Ways(later=MODEL, later_from=2),
    "changes its file midway": Ways(later=MODEL, later_from=9),
    "resets while it changes": Ways(later=MODEL, later_from=5, break_after=9000, breaks=3),
}


@pytest.mark.parametrize("known", [True, False], ids=["sha256", "unknown"])
@pytest.mark.parametrize("ways", GOOD_IN_THE_END.values(), ids=GOOD_IN_THE_END.keys())
def test_the_right_file_comes_from_a_server_that(client: Client, ways: Ways, known: bool) -> None:
    if ways.later:
        client.server.content[PATH] = OTHER
    client.server.ways[PATH] = replace(ways)
    got = client.get(sha256(MODEL) if known else None)
    assert client.final.read_bytes() == MODEL
    assert (got.sha256, got.size) == (sha256(MODEL), len(MODEL))
    assert client.progress.items["a.safetensors"].done == len(MODEL)


NEVER_GOOD = {
    "always resets": (Ways(break_after=100), "reset .6 tries.: run doit again"),
    "always ends early": (Ways(break_after=100, how="close"), "ended too early"),
    "always stalls": (Ways(break_after=100, how="stall"), "no data came for too long"),
    "breaks off chunks": (Ways(framing="chunked", break_after=9, how="close"), "ended too early"),
    "says too much": (Ways(lie=5, ranges="no"), "ended too early|not a safetensors file"),
    "says too little": (Ways(lie=-5, ranges="no"), "not a safetensors|sha256 is"),
    "says too little of each range": (Ways(lie=-5), "ended too early"),
    "encodes it": (Ways(gzip=True), "encodes it"),
    "is always busy": (Ways(busy_every=1), "503 Service Unavailable .6 tries."),
    "wants us back tomorrow": (Ways(busy_every=1, retry_after="86400"), "asks to wait 86400 s"),
    "calls it a page": (Ways(kind="text/html; charset=utf-8"), "web page"),
    "calls it JSON": (Ways(kind="application/json"), "sent JSON"),
}


@pytest.mark.parametrize("known", [True, False], ids=["sha256", "unknown"])
@pytest.mark.parametrize(("ways", "why"), NEVER_GOOD.values(), ids=NEVER_GOOD.keys())
def test_no_file_and_one_line_come_from_a_server_that(
    client: Client, ways: Ways, why: str, known: bool
) -> None:
    client.server.ways[PATH] = replace(ways)
    client.tolerance = replace(QUICK, read=0.1)
    with pytest.raises(Failure, match=rf"^a\.safetensors: .*({why})") as failure:
        client.get(sha256(MODEL) if known else None)
    assert "\n" not in str(failure.value)
    assert not client.final.exists()


SENT_INSTEAD = {
    "a page": (b"\xef\xbb\xbf<!DOCTYPE html><html>Sign in</html>", "web page"),
    "a long page": (b"<html>" + b"x" * SIZE, "web page"),
    "an error in JSON": (b'{"error": {"code": 401, "message": "no token"}}', "sent JSON"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 5\n", "LFS"),
    "nothing": (b"", "is empty"),
    "half of it": (MODEL[: SIZE // 2], "tensors end at|sha256 is"),
    "noise": (noise(SIZE), "no header|sha256 is"),
}


@pytest.mark.parametrize("known", [True, False], ids=["sha256", "unknown"])
@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "whole"])
@pytest.mark.parametrize("piece", [256 << 10, 1])
@pytest.mark.parametrize(("body", "why"), SENT_INSTEAD.values(), ids=SENT_INSTEAD.keys())
def test_no_file_comes_from_a_server_that_sends(
    client: Client, body: bytes, why: str, ranges: bool, known: bool, piece: int
) -> None:
    client.server.content[PATH] = body
    client.server.ways[PATH] = Ways(
        ranges="yes" if ranges else "no", piece=piece if len(body) < 1000 else FIRST
    )
    with pytest.raises(Failure, match=rf"a\.safetensors: .*({why}|sha256 is)"):
        client.get(sha256(MODEL) if known else None)
    assert list(client.folder.iterdir()) == []


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_an_empty_answer_without_a_length_is_asked_for_once(
    client: Client, framing: str, known: bool
) -> None:
    client.server.content[PATH] = b""
    client.server.ways[PATH] = Ways(
        ranges="no", framing="chunked" if framing == "chunked" else "close"
    )
    with pytest.raises(Failure, match=r"is empty|give its sha256"):
        client.get(sha256(MODEL) if known else None)
    assert client.server.counts[PATH].requests == 1


def test_what_ends_with_the_connection_needs_a_sha256(client: Client) -> None:
    client.server.ways[PATH] = Ways(framing="close", ranges="no")
    with pytest.raises(Failure, match="doesn't state its length: give its sha256"):
        client.get()
    client.get(sha256(MODEL))
    assert client.final.read_bytes() == MODEL


def test_what_ends_with_the_connection_too_early_is_fetched_again(client: Client) -> None:
    client.server.ways[PATH] = Ways(
        framing="close", ranges="no", break_after=9000, breaks=1, how="close"
    )
    client.get(sha256(MODEL))
    assert client.final.read_bytes() == MODEL


def test_a_trickle_counts_as_a_stall(client: Client) -> None:
    client.server.ways[PATH] = Ways(piece=1, pause=0.01)
    client.tolerance = replace(QUICK, read=0.1, slowest=5000, attempts=2)
    with pytest.raises(Failure, match="hardly any data came"):
        client.get()
    assert not client.final.exists()


def test_a_change_that_only_the_sha256_shows_is_found(client: Client) -> None:
    client.server.content[PATH] = OTHER
    client.server.ways[PATH] = Ways(later=MODEL, later_from=5, unnoticed=True)
    client.get(sha256(MODEL))
    assert client.final.read_bytes() == MODEL


def test_a_file_that_changes_at_every_request_is_given_up(client: Client) -> None:
    numbers = iter(range(10_000))

    def before(_: Asked) -> None:
        client.server.content[PATH] = safetensors(SIZE, seed=next(numbers))

    client.server.ways[PATH] = Ways(before=before)
    with pytest.raises(Failure, match="changes while it is downloaded, 4 times"):
        client.get()
    assert not client.final.exists()


def test_a_sha256_that_the_host_says_is_held_against_the_file(client: Client) -> None:
    client.server.ways[PATH] = Ways(headers={"X-Linked-Etag": f'"{sha256(OTHER)}"'})
    with pytest.raises(Failure, match=f"its sha256 is {sha256(MODEL)}, {sha256(OTHER)} was"):
        client.get()
    with pytest.raises(Failure, match=f"its sha256 is {sha256(OTHER)}, {sha256(MODEL)} was"):
        client.get(sha256(MODEL))
    assert not client.final.exists()


def test_another_length_than_the_known_one_is_refused(client: Client) -> None:
    with pytest.raises(Failure, match=rf"has {len(MODEL)} bytes, 5 were expected: doit update"):
        client.get(sha256(MODEL), size=5)


def interrupt(client: Client, known: str | None) -> int:
    """Download until the server resets for good; how many bytes the next run has."""
    number = 12

    def before(asked: Asked) -> None:
        if asked.number > number:
            raise ConnectionError

    client.server.ways[PATH] = Ways(before=before)
    with pytest.raises(Failure, match="run doit again to resume"):
        client.get(known)
    client.server.ways[PATH] = Ways()
    client.server.forget()
    with opened(client.folder / "name.part", True) as part:
        assert FIRST < part.have.total < SIZE
        return part.have.total


@pytest.mark.parametrize("known", [None, sha256(MODEL)], ids=["unknown", "sha256"])
def test_a_resume_asks_for_missing_bytes_alone_and_only_if_nothing_changed(
    client: Client, known: str | None
) -> None:
    had = interrupt(client, known)
    client.get(known)
    count = client.server.counts[PATH]
    assert client.final.read_bytes() == MODEL
    assert count.bytes == len(MODEL) - had
    assert len(asked_bytes(count.ranges, len(MODEL))) == count.bytes
    assert None not in [asked.if_range for asked in count.asked]


@pytest.mark.parametrize("ranges", ["yes", "no"])
def test_a_resume_of_what_changed_meanwhile_starts_again(client: Client, ranges: str) -> None:
    interrupt(client, None)
    client.server.content[PATH] = OTHER
    client.server.ways[PATH] = Ways(ranges="yes" if ranges == "yes" else "no")
    client.get()
    assert client.final.read_bytes() == OTHER


def test_a_resume_that_is_refused_starts_again(client: Client) -> None:
    interrupt(client, None)
    client.server.ways[PATH] = Ways(ranges="refused")
    client.get()
    assert client.final.read_bytes() == MODEL


def test_a_page_at_a_resume_leaves_what_is_there(client: Client) -> None:
    had = interrupt(client, None)
    client.server.content[PATH] = b"<html>Sign in</html>"
    client.server.ways[PATH] = Ways(kind="text/html")
    with pytest.raises(Failure, match="web page"):
        client.get()
    client.server.content[PATH] = MODEL
    client.server.ways[PATH] = Ways()
    client.server.forget()
    client.get()
    assert client.server.bytes == len(MODEL) - had


def test_what_was_whole_before_its_run_was_killed_is_asked_about_once_more(client: Client) -> None:
    wanted = DownloadRequest("a.safetensors", client.server.url + PATH)
    for content, requests in [(MODEL, 1), (OTHER, 22)]:
        with opened(client.folder / "name.part", False) as part:
            client.server.content[PATH] = MODEL
            download(wanted, part, Web(tolerance=QUICK), DiskSpace(client.folder), client.progress)
        client.server.content[PATH] = content
        client.server.forget()
        client.get()
        assert client.final.read_bytes() == content
        assert client.server.requests == requests


def test_a_part_whose_bytes_are_wrong_is_fetched_again_where_the_sha256_is_known(
    client: Client,
) -> None:
    interrupt(client, sha256(MODEL))
    with (client.folder / "name.part").open("r+b") as file:
        file.seek(5000)
        file.write(b"lost with the power")
    client.get(sha256(MODEL))
    assert client.final.read_bytes() == MODEL


def disk(monkeypatch: pytest.MonkeyPatch, free: Callable[[], int]) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free(), total=1 << 40))


def test_space_is_looked_for_before_the_first_byte(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, lambda: len(MODEL) + SPARE - 1)
    with pytest.raises(Failure, match=r"1\.3 MB needed, .* free on .*: free some"):
        client.get()
    assert list(client.folder.iterdir()) == []
    disk(monkeypatch, lambda: len(MODEL) + SPARE)
    client.get()
    assert client.final.read_bytes() == MODEL


def test_a_resume_needs_room_for_the_rest_alone(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    had = interrupt(client, None)
    disk(monkeypatch, lambda: len(MODEL) - had + SPARE)
    client.get()
    assert client.final.read_bytes() == MODEL


def test_what_one_file_was_promised_another_does_not_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(monkeypatch, lambda: SPARE + 100)
    space = DiskSpace(tmp_path)
    space.reserve("a", 60)
    with pytest.raises(Failure, match="b: 41 B needed, 40 B free on"):
        space.reserve("b", 41)
    space.use("a", 20)
    space.reserve("b", 60)
    space.release("b")
    space.reserve("a", 100)


def test_a_full_disk_is_one_line_and_what_is_there_serves_later(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = os.pwrite, [0]

    def full(file: int, data: bytes, at: int) -> int:
        written[0] += len(data)
        if written[0] > 5 * FIRST:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data, at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(Failure, match=r"a\.safetensors: no space left in"):
            client.get()
    client.server.forget()
    client.get()
    assert client.final.read_bytes() == MODEL
    assert client.server.bytes < len(MODEL)


def test_a_redirect_is_followed_for_every_range(client: Client) -> None:
    client.server.ways["/moved"] = Ways(redirect=PATH)
    client.get(path="/moved")
    assert client.final.read_bytes() == MODEL


def test_an_encoded_answer_is_refused_before_its_bytes_are_written(client: Client) -> None:
    client.server.content[PATH] = gzip.compress(MODEL)
    client.server.ways[PATH] = Ways(headers={"Content-Encoding": "gzip"})
    with pytest.raises(Failure, match="encodes it"):
        client.get()
    assert client.server.counts[PATH].requests == 1
    assert list(client.folder.iterdir()) == []


def test_no_thread_outlives_a_download(client: Client) -> None:
    before = set(threading.enumerate())
    client.get()
    client.server.ways[PATH] = Ways(break_after=1000)
    with pytest.raises(Failure, match="run doit again to resume"):
        client.get()

    def left() -> list[str]:
        names = [each.name for each in threading.enumerate() if each not in before]
        return [name for name in names if "process_request" not in name]  # the server's

    until(lambda: not left())


HOLD = """
import resource, sys
from pathlib import Path
from comfy_machine.host.downloads.download import download
from comfy_machine.host.downloads.download_request import DownloadRequest
from comfy_machine.host.downloads.partial_file import opened
from comfy_machine.host.downloads.web import Web
from comfy_machine.host.storage.disk_space import DiskSpace
from comfy_machine.host.system.progress import Progress

def get(name):
    with opened(Path(sys.argv[2]) / f"{name}.part", True) as part:
        wanted = DownloadRequest(name, f"{sys.argv[1]}/{name}")
        download(wanted, part, Web(), DiskSpace(part.path.parent), Progress("models"))
        part.discard()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

print(get("small"), get("large"))
"""


def test_memory_stays_flat_whatever_the_size(tmp_path: Path) -> None:
    with model_server() as server:
        for name, size in (("small", 70 << 20), ("large", 400 << 20)):
            server.content[f"/{name}"] = tmp_path / name
            with (tmp_path / name).open("wb") as file:
                file.truncate(size)
        ended = subprocess.run(
            [sys.executable, "-c", HOLD, server.url, str(tmp_path)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        assert server.counts["/large"].bytes == 400 << 20
    small, large = map(int, ended.stdout.split())
    assert large - small < 24_000, "KiB"
