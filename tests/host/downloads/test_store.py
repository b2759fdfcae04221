"""The store: each content once, whoever wants it, whenever they are killed."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_machine.host.downloads import partial_file
from comfy_machine.host.downloads.download_request import Downloaded, DownloadRequest
from comfy_machine.host.downloads.store import Store, stamp
from comfy_machine.host.downloads.web import Tolerance, Web
from comfy_machine.host.storage.disk_space import DiskSpace
from comfy_machine.host.system import locks
from comfy_machine.host.system.failure import Failure
from comfy_machine.host.system.progress import Progress
from tests.model_server import Asked, ModelServer, Ways, model_server, noise, until
from tests.rig import PROJECT

pytestmark = pytest.mark.usefixtures("private_folders")
MODEL = noise(300_000)
OTHER = noise(300_000, seed=1)
PATH = "/a.ckpt"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as server:
        server.content[PATH] = MODEL
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Store:
    folder = tmp_path / "store"
    folder.mkdir()
    return Store(folder)


def fetch(
    store: Store, server: ModelServer, known: str | None = None, path: str = PATH
) -> Downloaded:
    web = Web(tolerance=Tolerance(read=5, backoff=0.01))
    wanted = DownloadRequest("a.ckpt", server.url + path, known)
    return store.fetch(wanted, web, DiskSpace(store.folder), Progress("models"))


def models(store: Store) -> list[str]:
    return sorted(path.name for path in store.folder.iterdir() if len(path.name) == 64)


KNOWN = pytest.mark.parametrize("known", [sha256(MODEL), None], ids=["sha256", "unknown"])


@KNOWN
def test_a_download_is_named_by_its_content_and_read_only(
    store: Store, server: ModelServer, known: str | None
) -> None:
    got = fetch(store, server, known)
    assert got.sha256 == sha256(MODEL)
    assert store.place(got.sha256).read_bytes() == MODEL
    assert store.place(got.sha256).stat().st_mode & 0o777 == 0o444
    assert store.holds(got.sha256) == stamp(store.place(got.sha256))
    assert list(store.folder.glob("*.part*")) == []


def test_two_addresses_of_one_content_cost_one_file(store: Store, server: ModelServer) -> None:
    server.content["/b"] = MODEL
    first = fetch(store, server)
    inode = store.place(first.sha256).stat().st_ino
    assert fetch(store, server, path="/b").sha256 == first.sha256
    assert models(store) == [first.sha256]
    assert store.place(first.sha256).stat().st_ino == inode, "it may be in use"
    assert list(store.folder.glob("*.part*")) == []
    fetch(store, server, first.sha256, path="/c-is-not-asked")


def test_an_address_whose_version_is_the_same_is_known_again(
    store: Store, server: ModelServer
) -> None:
    first = fetch(store, server)
    server.forget()
    again = fetch(store, server)
    assert (again.sha256, again.size) == (first.sha256, first.size)
    assert server.counts[PATH].ranges == ["bytes=0-0"]


@pytest.mark.parametrize("validators", ["strong", "none"])
def test_an_address_with_another_version_is_fetched(
    store: Store, server: ModelServer, validators: str
) -> None:
    server.ways[PATH] = Ways(validators="strong" if validators == "strong" else "none")
    fetch(store, server)
    server.content[PATH] = OTHER
    assert fetch(store, server).sha256 == sha256(OTHER)
    assert models(store) == sorted([sha256(MODEL), sha256(OTHER)])


def test_a_chunked_file_is_known_again_by_its_etag(store: Store, server: ModelServer) -> None:
    server.ways[PATH] = Ways(framing="chunked", ranges="no")
    fetch(store, server)
    inode = store.place(sha256(MODEL)).stat().st_ino
    fetch(store, server)
    assert store.place(sha256(MODEL)).stat().st_ino == inode
    assert server.counts[PATH].ranges[-1] == "bytes=0-0"


@pytest.mark.parametrize(
    "record",
    [b"", b"[]", b'{"sha256": "../../etc/passwd", "version": {}}',
     b'{"sha256": "%b", "version": {"wrong": 1}}' % sha256(MODEL).encode()],
)  # fmt: skip
def test_a_damaged_record_of_an_address_means_fetch_it(
    store: Store, server: ModelServer, record: bytes
) -> None:
    fetch(store, server)
    (address,) = store.folder.glob("*.url.json")
    address.write_bytes(record)
    assert fetch(store, server).sha256 == sha256(MODEL)


@KNOWN
def test_a_damaged_file_is_replaced(store: Store, server: ModelServer, known: str | None) -> None:
    place = store.place(fetch(store, server, known).sha256)
    place.chmod(0o644)
    place.write_bytes(b"damaged")
    fetch(store, server, known)
    assert place.read_bytes() == MODEL
    assert store.holds(sha256(MODEL))


def test_a_file_that_a_killed_run_named_and_did_not_note_is_not_fetched_twice(
    store: Store, server: ModelServer
) -> None:
    fetch(store, server)
    (store.folder / f"{sha256(MODEL)}.json").unlink()
    server.forget()
    assert fetch(store, server).sha256 == sha256(MODEL)
    assert server.counts[PATH].ranges == ["bytes=0-0"]
    assert store.holds(sha256(MODEL))


def truncate(place: Path) -> None:
    os.truncate(place, 1000)


def touch(place: Path) -> None:
    os.utime(place, (1, 1))


def replace(place: Path) -> None:
    place.unlink()
    place.write_bytes(OTHER)
    os.utime(place, (1, 1))


def delete(place: Path) -> None:
    place.unlink()


def forget(place: Path) -> None:
    place.with_name(f"{place.name}.json").unlink()


@pytest.mark.parametrize(
    ("drift", "right"),
    [(truncate, False), (touch, True), (replace, False), (delete, False), (forget, True)],
)
def test_drift_is_found_and_verified(
    store: Store, server: ModelServer, drift: object, right: bool
) -> None:
    name = fetch(store, server).sha256
    assert store.verify(name, Progress("v"), "a")
    assert callable(drift)
    drift(store.place(name))
    assert store.holds(name) is None
    assert store.verify(name, Progress("v"), "a") is right
    assert (store.holds(name) is not None) is right


def test_a_change_that_keeps_size_and_time_is_found_by_verify(
    store: Store, server: ModelServer
) -> None:
    name = fetch(store, server).sha256
    place = store.place(name)
    status = place.stat()
    place.chmod(0o644)
    place.write_bytes(OTHER)
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert store.holds(name)
    assert not store.verify(name, Progress("v"), "a")
    assert store.holds(name) is None


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_file_is_adopted_from_its_place(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool, there: bool
) -> None:
    def rename(self: Path, target: Path) -> Path:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    if elsewhere:
        monkeypatch.setattr(Path, "rename", rename)
    for number in range(1 + there):
        file = tmp_path / f"{number}.ckpt"
        file.write_bytes(MODEL)
        store.adopt(file, sha256(MODEL))
        assert not file.exists()
    assert store.place(sha256(MODEL)).read_bytes() == MODEL
    assert store.holds(sha256(MODEL))
    assert list(store.folder.glob("*.part*")) == []


def test_a_copy_that_fails_leaves_the_file_where_it_was(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(self: Path, target: Path) -> Path:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    def sync(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(os, "fdatasync", sync)
    file = tmp_path / "a.ckpt"
    file.write_bytes(MODEL)
    with pytest.raises(OSError, match="No space"):
        store.adopt(file, sha256(MODEL))
    assert file.read_bytes() == MODEL
    assert list(store.folder.iterdir()) == []


CLIENT = """
import sys
from pathlib import Path
from comfy_machine.host.downloads import download, partial_file
from comfy_machine.host.downloads.download_request import DownloadRequest
from comfy_machine.host.downloads.store import Store
from comfy_machine.host.downloads.web import Tolerance, Web
from comfy_machine.host.storage.disk_space import DiskSpace
from comfy_machine.host.system.progress import Progress

download.FIRST = download.LONGEST_SPAN = partial_file.NOTE_EVERY = 1 << 20
store = Store(Path(sys.argv[1]))
wanted = DownloadRequest("a.ckpt", sys.argv[2], sys.argv[3] or None)
web = Web(tolerance=Tolerance(backoff=0.01))
print(store.fetch(wanted, web, DiskSpace(store.folder), Progress("models")).sha256)
"""


def start(store: Store, server: ModelServer, known: str | None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, str(store.folder), server.url + PATH, known or ""],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )


def waits_for_a_lock(path: Path) -> bool:
    inode = f":{path.stat().st_ino} "
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and inode in line for line in lines)


@pytest.mark.parametrize(
    ("known", "ways"),
    [(sha256(MODEL), Ways()), (None, Ways()), (None, Ways(validators="none"))],
    ids=["sha256", "unknown", "unknown and without validators"],
)
def test_two_processes_that_want_one_file_fetch_it_once(
    store: Store, server: ModelServer, known: str | None, ways: Ways
) -> None:
    def before(asked: Asked) -> None:
        if asked.number == 1:
            (one,) = store.folder.glob("*.part")
            until(lambda: waits_for_a_lock(one))

    server.ways[PATH] = dataclasses.replace(ways, before=before)
    processes = [start(store, server, known) for _ in range(2)]
    for process in processes:
        assert process.communicate(timeout=60)[0].strip() == sha256(MODEL)
    assert server.counts[PATH].bytes <= len(MODEL) + 1
    assert models(store) == [sha256(MODEL)]


def test_a_second_process_goes_on_where_the_first_was_killed(
    store: Store, server: ModelServer
) -> None:
    killed = threading.Event()

    def before(asked: Asked) -> None:
        if asked.number == 1:
            (one,) = store.folder.glob("*.part")
            until(lambda: waits_for_a_lock(one))
            first.kill()
            killed.set()

    server.ways[PATH] = Ways(before=before)
    first = start(store, server, sha256(MODEL))
    until(lambda: list(store.folder.glob("*.part")))
    second = start(store, server, sha256(MODEL))
    assert second.communicate(timeout=60)[0].strip() == sha256(MODEL)
    first.communicate()
    assert killed.is_set()


@KNOWN
@pytest.mark.parametrize("locks", ["none on the volume", "none at all"])
def test_without_locks_both_may_fetch_and_the_file_is_right(
    store: Store,
    server: ModelServer,
    monkeypatch: pytest.MonkeyPatch,
    known: str | None,
    locks: str,
) -> None:
    real, folder = fcntl.flock, store.folder if locks == "none on the volume" else Path("/")

    def flock(file: int, how: int) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(folder):
            raise OSError(errno.ENOLCK, "No locks available")
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    both = threading.Barrier(2)

    def before(asked: Asked) -> None:
        if locks == "none at all" and asked.number <= 2:
            both.wait(10)

    server.ways[PATH] = Ways(before=before)
    gots: list[str] = []
    threads = [
        threading.Thread(target=lambda: gots.append(fetch(store, server, known).sha256))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gots == [sha256(MODEL)] * 2
    assert store.place(sha256(MODEL)).read_bytes() == MODEL
    assert store.holds(sha256(MODEL))
    assert list(store.folder.glob("*.part*")) == []


def test_machines_whose_locks_do_not_reach_each_other_have_parts_of_their_own(
    store: Store, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "reach_other_machines", lambda _: False)
    monkeypatch.setattr(partial_file, "_here", lambda: threading.current_thread().name)
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    both = threading.Barrier(2)
    parts: list[list[str]] = []

    def before(asked: Asked) -> None:
        if asked.number <= 2:
            both.wait(10)
            parts.append(sorted(path.name for path in store.folder.glob("*.*.part")))
            both.wait(10)

    server.ways[PATH] = Ways(before=before)
    gots: list[str] = []
    threads = [
        threading.Thread(target=lambda: gots.append(fetch(store, server).sha256), name=name)
        for name in ("one", "two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(names) for names in parts] == [2, 2]
    assert gots == [sha256(MODEL)] * 2
    assert store.place(sha256(MODEL)).read_bytes() == MODEL
    assert list(store.folder.glob("*.part*")) == []


def test_parts_that_nobody_works_on_are_named_with_their_notes(
    store: Store, server: ModelServer
) -> None:
    server.ways[PATH] = Ways(break_after=1000)
    with pytest.raises(Failure, match="reset"):
        fetch(store, server, sha256(MODEL))
    names = [path.name for path in store.parts()]
    assert names == [f"{sha256(MODEL)}.part", f"{sha256(MODEL)}.part.json"]
    with partial_file.opened(store.folder / names[0], True):
        assert list(store.parts()) == []


def noted(store: Store) -> set[tuple[int, int]]:
    notes = [json.loads(note.read_text()) for note in store.folder.glob("*.part.json")]
    return {(start, end) for note in notes for start, end in note["have"]}


def kill_when(process: subprocess.Popen[str], server: ModelServer, goal: int) -> None:
    until(lambda: server.bytes > goal or process.poll() is not None)
    process.kill()


@KNOWN
def test_however_often_it_is_killed_the_next_run_goes_on(
    store: Store, server: ModelServer, known: str | None
) -> None:
    mib = 1 << 20
    server.content[PATH] = whole = noise(40 * mib)
    server.ways[PATH] = Ways(piece=64 << 10, pause=0.004)
    dice, kills = random.Random(), 6
    count = server.counts[PATH]
    for _ in range(kills):
        kept, asked = noted(store), count.requests
        process = start(store, server, known and sha256(whole))
        goal = server.bytes + dice.randrange(8 * mib)
        kill_when(process, server, goal)
        process.communicate()
        until(lambda: count.now == 0)
        again = [each.removeprefix("bytes=").split("-") for each in count.ranges[asked:] if each]
        twice = [
            (start, end)
            for start, end in again
            for one, other in kept
            if int(start) < other and one <= int(end)
        ]
        assert twice == [], "it was noted as there"
        assert models(store) in ([], [sha256(whole)])
    last = start(store, server, known and sha256(whole))
    assert last.communicate(timeout=60)[0].strip() == sha256(whole)
    assert store.place(sha256(whole)).read_bytes() == whole
    # What is lost by a kill: bytes since the last note, and those in the sockets.
    assert server.bytes < len(whole) + kills * 3 * mib
    # A kill may leave the hidden file of a note that it interrupted.
    assert list(store.folder.glob("[!.]*.part*")) == []


def test_a_store_that_takes_no_notes_can_be_verified(tmp_path: Path) -> None:
    store = Store(tmp_path)
    content = b"content"
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / digest).write_bytes(content)
    # Nothing can take the place of a folder, as little as on a read-only volume.
    (tmp_path / f"{digest}.json").mkdir()
    assert store.verify(digest, Progress("test"), "name")
