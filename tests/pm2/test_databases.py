"""An upgrade of ComfyUI takes its database along, going back finds it as it was."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import MachineMaker
from tests.forge import Forge, Repository
from tests.rig import SIMULATOR, Rig


def used(rig: Rig) -> Path:
    """The database of the instance that runs, by its own command line."""
    argv = rig.client().get("/system_stats")["system"]["argv"]
    return Path(argv[argv.index("--database-url") + 1].removeprefix("sqlite:///"))


def rows(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as db:
        return [row[0] for row in db.execute("select x from t")]


def table_revision(file: Path) -> int:
    with closing(sqlite3.connect(file)) as db:
        (found,) = db.execute("pragma user_version").fetchone()
        return int(found)


def write(rig: Rig, value: str) -> None:
    with closing(sqlite3.connect(used(rig))) as db, db:
        db.execute("create table if not exists t (x)")
        db.execute("insert into t values (?)", (value,))


@pytest.fixture
def comfyui(forge: Forge) -> Repository:
    return forge.copy("ComfyUI", SIMULATOR)


def upgrade(
    rig: Rig, comfyui: Repository, tag: str, changes: dict[str, str | None] | None = None
) -> None:
    comfyui.commit({"news.txt": tag, **(changes or {})}, tag=tag)
    rig.spec["comfyui"]["ref"] = tag
    rig.doit()


def names(rig: Rig) -> set[str]:
    return {path.name for path in rig.layout.databases(0).glob("*.db")}


def test_the_database_goes_along_and_back_and_the_newer_one_stays(
    machine: MachineMaker, comfyui: Repository
) -> None:
    comfyui.commit({"news.txt": "a"}, tag="a")
    rig = machine(comfyui={"repo": comfyui.url, "ref": "a"})
    rig.doit()
    first = used(rig)
    assert first.stem == comfyui.git("rev-parse", "a")[:12]
    write(rig, "under a")
    upgrade(rig, comfyui, "b")
    second = used(rig)
    assert second.stem == comfyui.git("rev-parse", "b")[:12]
    assert rows(second) == ["under a"]
    write(rig, "under b")

    rig.doit("rollback")
    assert used(rig) == first
    assert rows(first) == ["under a"]
    write(rig, "back on a")
    rig.doit("force=1")
    assert used(rig) == second
    assert rows(second) == ["under a", "under b"]
    assert rows(first) == ["under a", "back on a"]


def test_a_comfyui_that_refuses_the_tables_of_a_newer_one_starts_on_its_own(
    machine: MachineMaker, comfyui: Repository
) -> None:
    """With assets, a database of a later revision ends the start."""
    comfyui.commit({"news.txt": "a"}, tag="a")
    rig = machine(comfyui={"repo": comfyui.url, "ref": "a"}, instances={"assets": True})
    rig.doit()
    first, revision = used(rig), table_revision(used(rig))
    flags = SIMULATOR / "simulation" / "flags.py"
    text = flags.read_text().replace('default="2026"', 'default="later"')
    upgrade(rig, comfyui, "b", {"simulation/flags.py": text})
    assert table_revision(used(rig)) > revision
    rig.doit("rollback")
    assert rig.healthy()
    assert used(rig) == first
    assert table_revision(first) == revision


def test_those_of_commits_that_no_generation_has_are_removed(
    machine: MachineMaker, comfyui: Repository
) -> None:
    comfyui.commit({"news.txt": "a"}, tag="a")
    rig = machine(comfyui={"repo": comfyui.url, "ref": "a"}, retention={"generations": 2})
    rig.doit()
    write(rig, "under a")
    first = used(rig)
    beside = [first.with_name(f"{first.name}{end}") for end in ("-wal", ".lock", ".bkp")]
    upgrade(rig, comfyui, "b")
    second = used(rig)
    for path in beside:
        path.touch()
    assert names(rig) >= {first.name, second.name}, "the last good one's stays"
    upgrade(rig, comfyui, "c")
    assert names(rig) == {second.name, used(rig).name}
    assert not any(path.exists() for path in beside)
    assert rows(used(rig)) == ["under a"]
    assert rig.doit().executed == set()


def test_a_restart_and_another_node_change_nothing(
    machine: MachineMaker, comfyui: Repository, forge: Forge
) -> None:
    rig = machine(comfyui={"repo": comfyui.url})
    rig.doit()
    write(rig, "kept")
    file = used(rig)
    rig.spec["custom_nodes"] = [{"url": forge.node("alpha").url}]
    rig.doit()
    assert used(rig) == file
    assert rows(file) == ["kept"]
    assert names(rig) == {file.name}
