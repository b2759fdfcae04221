"""The first start of a commit begins with a copy of the database that was used last."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from comfy_machine.host.comfyui import database_files
from comfy_machine.host.comfyui.database_files import prepare
from comfy_machine.host.system.failure import Failure

WRITES = """
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1])
db.execute("pragma journal_mode=wal")
db.execute("create table if not exists t (x)")
db.execute("insert into t values ('in the log')")
db.commit()
print("written", flush=True)
time.sleep(600)
"""


def write(file: Path, value: str) -> None:
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("create table if not exists t (x)")
        db.execute("insert into t values (?)", (value,))


def read(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as db:
        return [row[0] for row in db.execute("select x from t")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "gpu0" / "databases"


def start(folder: Path, commit: str, value: str) -> Path:
    """What a start of a commit does, and what it writes then."""
    file = folder / f"{commit}.db"
    prepare(file)
    write(file, value)
    return file


def test_each_commit_has_its_own_and_keeps_it(folder: Path) -> None:
    a, b = start(folder, "a", "by a"), start(folder, "b", "by b")
    assert read(b) == ["by a", "by b"]
    start(folder, "a", "a again")
    assert read(a) == ["by a", "a again"], "as it was left, without what b wrote"
    start(folder, "b", "b again")
    assert read(b) == ["by a", "by b", "b again"], "it isn't copied over"
    assert read(start(folder, "c", "by c")) == ["by a", "by b", "b again", "by c"]
    start(folder, "a", "and a")
    assert read(start(folder, "d", "by d")) == ["by a", "a again", "and a", "by d"]
    assert {path.name for path in folder.iterdir()} == {"a.db", "b.db", "c.db", "d.db", "last"}


def test_the_one_of_before_is_copied_and_stays(folder: Path) -> None:
    folder.parent.mkdir()
    old = folder.parent / "comfyui.db"
    write(old, "long ago")
    assert read(start(folder, "a", "by a")) == ["long ago", "by a"]
    assert read(old) == ["long ago"]


def test_the_first_of_all_is_left_to_comfyui(folder: Path) -> None:
    prepare(folder / "a.db")
    assert [path.name for path in folder.iterdir()] == ["last"]
    prepare(folder / "b.db")
    assert not (folder / "b.db").exists()


def test_what_a_killed_process_left_in_its_log_is_copied_too(folder: Path) -> None:
    prepare(folder / "a.db")
    with subprocess.Popen(
        [sys.executable, "-c", WRITES, folder / "a.db"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert (folder / "a.db-wal").stat().st_size
    assert read(start(folder, "b", "by b")) == ["in the log", "by b"]


def test_what_is_no_database_is_left_and_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = folder / "a.db"
    prepare(a)
    a.write_bytes(b"no database at all" * 1000)
    prepare(folder / "b.db")
    assert f"{a} is damaged" in capsys.readouterr().out
    assert not (folder / "b.db").exists()
    assert a.read_bytes().startswith(b"no database")
    assert read(start(folder, "c", "anew")) == ["anew"]


def test_a_copy_that_fails_leaves_nothing_and_what_was_used_last_is_still_that(
    folder: Path,
) -> None:
    a = start(folder, "a", "by a")
    write(a, "x" * 1_000_000)
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))"
    imports = (
        "from pathlib import Path\nfrom comfy_machine.host.comfyui.database_files import prepare"
    )
    code = f"{limited}\n{imports}\n"
    failed = subprocess.run(
        [sys.executable, "-c", f"{code}prepare(Path({str(folder / 'b.db')!r}))"],
        capture_output=True,
        text=True,
    )
    said = failed.stderr.splitlines()[-1]
    assert f"{folder / 'b.db'} can't be created from the database used last, {a}" in said
    assert {path.name for path in folder.iterdir()} == {"a.db", "last"}
    assert read(start(folder, "c", "by c"))[0] == "by a"


def test_one_that_stays_locked_is_waited_for_and_then_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = start(folder, "a", "by a")
    monkeypatch.setattr(database_files, "LOCK_TIMEOUT", 0.1)
    with closing(sqlite3.connect(a)) as other:
        other.execute("begin exclusive")
        with pytest.raises(Failure, match="locked"):
            prepare(folder / "b.db")
    assert (folder / "last").readlink() == Path("a.db")
    assert read(start(folder, "b", "by b")) == ["by a", "by b"]
