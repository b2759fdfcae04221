"""A download on its way: what its note says, and who may work on it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import threading
from pathlib import Path

import pytest

from comfy_machine.host.downloads import partial_file
from comfy_machine.host.downloads.partial_file import Version, opened
from comfy_machine.host.system import locks
from tests.model_server import until

pytestmark = pytest.mark.usefixtures("private_folders")
VERSION = Version(100, '"tag"', "Tue, 14 Nov 2023 22:13:20 GMT")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "name.part"


def fill(path: Path, *writes: tuple[int, bytes], version: Version = VERSION) -> None:
    with opened(path, True) as one:
        one.restart(version)
        for position, data in writes:
            one.write(data, position)


def test_what_one_run_wrote_the_next_one_has(path: Path) -> None:
    fill(path, (0, b"a" * 10), (50, b"b" * 10))
    with opened(path, False) as again:
        assert list(again.have) == [(0, 10), (50, 60)]
        assert again.version == VERSION
        assert again.resumed
        assert again.missing(100) == [(10, 50), (60, 100)]
        assert again.prefix == 10


def test_a_part_in_which_nothing_is_does_not_stay(path: Path) -> None:
    fill(path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("version", [Version(100), Version(100, 'W/"tag"'), Version(None, '"tag"')])
def test_what_no_validator_describes_is_not_resumed(path: Path, version: Version) -> None:
    fill(path, (0, b"a" * 10), version=version)
    with opened(path, True) as again:
        assert not again.resumed
        assert again.missing(100) == [(0, 100)]


@pytest.mark.parametrize(
    "note",
    [
        b"", b"{", b"[]", b'{"version": 1, "have": [], "boot": ""}',
        b'{"version": {"wrong": 1}, "have": [[0, 5]], "boot": ""}',
        b'{"version": {"size": "x", "etag": "t"}, "have": [[0, 5]], "boot": ""}',
        b'{"version": {"size": 100, "etag": "t"}, "have": [[0, "x"]], "boot": ""}',
        b'{"version": {"size": 100, "etag": "t"}, "have": [[0]], "boot": ""}',
        b'{"version": {"size": 100, "etag": "t"}, "have": [[-5, 5]], "boot": ""}',
        b'{"version": {"size": 100, "etag": "t"}, "have": [[0, 11]], "boot": ""}',
        b'{"version": {"size": 5, "etag": "t"}, "have": [[0, 10]], "boot": ""}',
    ],
)  # fmt: skip
def test_a_note_that_is_damaged_or_claims_too_much_is_not_believed(path: Path, note: bytes) -> None:
    path.write_bytes(b"a" * 10)
    path.with_name("name.part.json").write_bytes(note)
    with opened(path, True) as one:
        assert not one.resumed
        assert one.version is None
        assert one.have.total == 0


@pytest.mark.parametrize(("trusted", "resumed"), [(True, True), (False, False)])
def test_a_note_from_before_the_last_boot_serves_only_where_a_sha256_will_tell(
    path: Path, trusted: bool, resumed: bool
) -> None:
    fill(path, (0, b"a" * 10))
    note = path.with_name("name.part.json")
    note.write_text(json.dumps(json.loads(note.read_text()) | {"boot": "another"}))
    with opened(path, trusted) as one:
        assert one.resumed is resumed


def test_a_note_never_claims_what_is_not_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partial_file, "NOTE_EVERY", 1)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    with opened(path, True) as one:
        one.restart(VERSION)
        one.write(b"a" * 10, 0)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            with pytest.raises(OSError, match="no space"):
                one.write(b"b" * 10, 10)
        noted = json.loads(path.with_name("name.part.json").read_text())
        assert noted["have"] == [[0, 10]]
        assert list(one.have) == [(0, 10)]


def test_a_short_write_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, bytes(data[:3]), at))
    fill(path, (5, b"0123456789"))
    assert path.read_bytes() == b"\0" * 5 + b"0123456789"
    with opened(path, True) as again:
        assert list(again.have) == [(5, 15)]


def test_a_kept_part_has_its_name_nothing_beside_it_and_is_read_only(path: Path) -> None:
    place = path.with_name("place")
    with opened(path, True) as one:
        one.restart(VERSION)
        one.write(b"a" * 100, 0)
        one.keep(place)
    assert list(path.parent.iterdir()) == [place]
    assert place.read_bytes() == b"a" * 100
    assert stat.S_IMODE(place.stat().st_mode) == 0o444


def test_a_part_that_somebody_replaced_is_neither_kept_nor_removed(path: Path) -> None:
    with opened(path, True) as one:
        one.restart(VERSION)
        one.write(b"a" * 100, 0)
        path.unlink()
        path.write_bytes(b"theirs")
        with pytest.raises(OSError, match="another process replaced it"):
            one.keep(path.with_name("place"))
        one.discard()
    assert path.read_bytes() == b"theirs"
    assert not path.with_name("place").exists()


def test_who_waits_for_a_part_that_is_kept_gets_a_new_one(path: Path) -> None:
    second: list[tuple[int, bool]] = []

    def wait() -> None:
        with opened(path, True) as later:
            second.append((later.have.total, later.resumed))
            later.restart(VERSION)
            later.write(b"b" * 100, 0)

    with opened(path, True) as one:
        one.restart(VERSION)
        one.write(b"a" * 100, 0)
        waiting = threading.Thread(target=wait)
        waiting.start()
        until(lambda: _waits_for_a_lock(path))
        assert not partial_file.free(path)
        assert second == []
        one.keep(path.with_name("place"))
    waiting.join()
    assert second == [(0, False)]
    assert path.with_name("place").read_bytes() == b"a" * 100


def _waits_for_a_lock(path: Path) -> bool:
    inode = f":{path.stat().st_ino} "
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line and inode in line for line in lines)


def test_a_part_is_free_when_nobody_works_on_it(path: Path) -> None:
    fill(path, (0, b"a"))
    assert partial_file.free(path)
    with opened(path, True):
        assert not partial_file.free(path)


def _without_locks_in(folder: Path, patch: pytest.MonkeyPatch) -> None:
    real = fcntl.flock

    def flock(file: int, how: int) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_relative_to(folder):
            raise OSError(errno.ENOLCK, "No locks available")
        real(file, how)

    patch.setattr(fcntl, "flock", flock)


def test_without_locks_processes_here_take_turns_and_resume(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_locks_in(path.parent, monkeypatch)
    fill(path, (0, b"a" * 10))
    (kept,) = path.parent.glob("*.part")
    assert kept != path
    assert partial_file.free(kept)
    entered = threading.Event()

    def second() -> None:
        with opened(path, True) as one:
            assert one.resumed
            entered.set()

    with opened(path, True) as again:
        assert list(again.have) == [(0, 10)]
        assert not partial_file.free(kept)
        other = threading.Thread(target=second)
        other.start()
        assert not entered.wait(0.1)
    other.join()
    assert entered.is_set()


def test_without_any_locks_nobody_shares_a_part(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_locks_in(Path("/"), monkeypatch)
    with opened(path, True) as one, opened(path, True) as two:
        assert one.path != two.path
        assert not os.path.samestat(os.fstat(one.descriptor), os.fstat(two.descriptor))
    assert list(path.parent.iterdir()) == []


MOUNTS = """\
21 1 0:1 / / rw - overlay overlay rw
22 21 {device} / {folder} rw,relatime shared:1 - {mount}
"""


@pytest.mark.parametrize(
    ("mount", "reach"),
    [
        ("ext4 /dev/vda rw,discard", True),
        ("nfs4 server:/ rw,vers=4.2,local_lock=none", True),
        ("nfs server:/ rw,vers=3,nolock", False),
        ("nfs server:/ rw,vers=3,local_lock=flock", False),
        ("lustre server:/ rw,localflock", False),
        ("fuse.gcsfuse bucket rw", False),
        ("9p none rw", False),
    ],
)
def test_locks_that_may_hold_here_alone_are_told_by_the_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mount: str, reach: bool
) -> None:
    device = tmp_path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.format(device=number, folder=tmp_path, mount=mount))
    monkeypatch.setattr(locks, "MOUNTS", mounts)
    assert locks.reach_other_machines(tmp_path) is reach
    with opened(tmp_path / "name.part", True) as one:
        assert (one.path == tmp_path / "name.part") is reach
        assert not partial_file.free(one.path)
    assert list(tmp_path.iterdir()) == [mounts]


STRONG, WEAK, DATE = '"a"', 'W/"a"', "Tue, 14 Nov 2023 22:13:20 GMT"


@pytest.mark.parametrize(
    ("one", "other", "fits"),
    [
        (Version(1, STRONG), Version(1, STRONG), True),
        (Version(1, STRONG), Version(2, STRONG), False),
        (Version(1, STRONG), Version(1, '"b"'), False),
        (Version(1, STRONG, DATE), Version(1, '"b"', DATE), False),
        (Version(1, STRONG, DATE), Version(1, STRONG, "another"), True),
        (Version(1, WEAK, DATE), Version(1, STRONG, DATE), True),
        (Version(1, WEAK, DATE), Version(1, WEAK, "another"), False),
        (Version(1, WEAK), Version(1, WEAK), True),
        (Version(1, None, DATE), Version(1, None, DATE), True),
        (Version(1, None, DATE), Version(1, None, "another"), False),
        (Version(1), Version(1), False),
        (Version(None, STRONG), Version(1, STRONG), True),
    ],
)
def test_versions_fit_where_something_says_so(one: Version, other: Version, fits: bool) -> None:
    assert one.fits(other) is fits
    assert other.fits(one) is fits
