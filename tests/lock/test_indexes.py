"""Package indexes that want credentials: uv gets them, and nobody else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_machine.host.python import uv
from comfy_machine.host.system import files, process
from comfy_machine.host.system.failure import Failure
from comfy_machine.lock import indexes
from tests.servers import index_server, make_wheel

PROJECT = "tinywheel"
#: With everything that has a meaning in a URL.
TOKEN = "t0ken:/@?#%,& x"
VALUES = {"USER_NAME": "me@host", "TOKEN": TOKEN}


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("UV_INDEX", "UV_FIND_LINKS", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    # nothing listens there: no test asks an index of the world
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    with index_server(PROJECT, f"me@host:{TOKEN}", f"{TOKEN}:") as (url, seen):
        yield url, seen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty Python environment."""
    uv.make_environment(tmp_path / "venv", Path(sys.executable), tmp_path / "log")
    return tmp_path / "venv"


def with_credentials(url: str, userinfo: str = "${USER_NAME}:${TOKEN}") -> str:
    return url.replace("://", f"://{userinfo}@")


def run_uv(folder: Path, variables: dict[str, str], *arguments: str) -> str:
    python = ["--python", str(folder / "bin" / "python")]
    return process.run(
        [uv.binary(), "pip", *arguments, *python], env=uv.environment() | variables,
        cwd=folder.parent, log=folder.parent / "log",
    )  # fmt: skip


def installed(folder: Path) -> bool:
    return (uv.site_packages(folder) / f"{PROJECT}.py").exists()


def holding(folder: Path, secret: str) -> list[Path]:
    """The files below a folder that hold a secret, as it is or as a URL spells it."""
    words = (secret.encode(), secret.replace("@", "%40").encode(), b"t0ken")
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and any(word in path.read_bytes() for word in words)
    ]


@pytest.mark.parametrize(
    ("userinfo", "sent"),
    [("${USER_NAME}:${TOKEN}", f"me@host:{TOKEN}"), ("${TOKEN}", f"{TOKEN}:")],
)
def test_uv_compiles_syncs_and_installs_from_an_index_with_credentials(
    server: tuple[str, list[str]], folder: Path, tmp_path: Path, userinfo: str, sent: str
) -> None:
    url, seen = server
    variables = indexes.environment([with_credentials(f"{url}/simple", userinfo)], VALUES)
    (tmp_path / "asked.in").write_text(PROJECT)
    run_uv(folder, variables, "compile", "--generate-hashes", "asked.in", "-o", "locked.txt")
    locked = (tmp_path / "locked.txt").read_text()
    assert f"{PROJECT}==1.0" in locked
    assert "--hash=sha256:" in locked
    assert "127.0.0.1" not in locked
    run_uv(folder, variables, "sync", "--require-hashes", "locked.txt")
    assert installed(folder)
    run_uv(folder, variables, "uninstall", PROJECT)
    run_uv(folder, variables, "install", "--no-cache", PROJECT)
    assert installed(folder)
    assert sent in seen
    assert holding(tmp_path, TOKEN) == []


def test_what_uv_says_of_wrong_credentials_does_not_hold_them(
    server: tuple[str, list[str]], folder: Path, tmp_path: Path
) -> None:
    values = VALUES | {"TOKEN": "wrong-t0ken"}
    page = with_credentials(f"{server[0]}/page")
    index = with_credentials(f"{server[0]}/simple")
    for variables in (indexes.environment([index], values), indexes.find_links([page], values)):
        with pytest.raises(process.CommandFailed) as caught:
            run_uv(folder, variables, "install", "--verbose", PROJECT)
        assert "401 Unauthorized" in caught.value.output
        assert "t0ken" not in caught.value.output
    assert holding(tmp_path, "wrong-t0ken") == []


def test_indexes_keep_their_order_and_their_own_credentials_and_the_callers_come_last(
    folder: Path,
) -> None:
    with (
        index_server("one", "a:1") as (one, seen_by_one),
        index_server("two", "b:2") as (two, seen_by_two),
        index_server("three", "c:3") as (three, _),
    ):
        values = {"A": "a", "ONE": "1", "B": "b", "TWO": "2",
                  "UV_INDEX": with_credentials(f"{three}/simple", "c:3")}  # fmt: skip
        urls = [
            with_credentials(f"{one}/simple", "${A}:${ONE}"),
            with_credentials(f"{two}/simple", "${B}:${TWO}"),
        ]
        variables = indexes.environment(urls, values)
        run_uv(folder, variables, "install", "one", "two", "three")
    assert variables["UV_INDEX"].startswith(f"machine-yaml-0={one}/simple machine-yaml-1={two}/")
    assert set(seen_by_one) == {"a:1"}
    assert set(seen_by_two) == {"b:2"}


def test_no_index_leaves_the_callers_alone() -> None:
    assert indexes.environment([], {"UV_INDEX": "https://host/simple"}) == {}
    assert indexes.find_links([], {"UV_FIND_LINKS": "/wheels"}) == {}


def test_wheels_are_found_in_folders_on_pages_and_where_the_caller_says(
    server: tuple[str, list[str]], folder: Path, tmp_path: Path
) -> None:
    for place, project in (("our, wheels", "ours"), ("theirs", "theirs")):
        (tmp_path / place).mkdir()
        name, content = make_wheel(project)
        (tmp_path / place / name).write_bytes(content)
    values = VALUES | {"UV_FIND_LINKS": str(tmp_path / "theirs")}
    places = [str(tmp_path / "our, wheels"), with_credentials(f"{server[0]}/page?of=us,you")]
    variables = indexes.find_links(places, values)
    run_uv(folder, variables, "install", "--no-index", PROJECT, "ours", "theirs")
    assert installed(folder)
    assert {"ours.py", "theirs.py"} <= {path.name for path in uv.site_packages(folder).iterdir()}
    assert holding(tmp_path, TOKEN) == []


@pytest.mark.parametrize("how", ["~/.netrc", "NETRC"])
def test_uv_finds_credentials_in_a_netrc_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    file = tmp_path / "home" / ".netrc" if how == "~/.netrc" else tmp_path / "elsewhere"
    files.write_text(file, "machine 127.0.0.1 login me password netrc-t0ken\n", mode=0o600)
    if how == "NETRC":
        monkeypatch.setenv("NETRC", str(file))
    with index_server(PROJECT, "me:netrc-t0ken") as (url, _):
        variables = indexes.environment([f"{url}/simple"], os.environ)
        run_uv(folder, variables, "install", PROJECT)
    assert installed(folder)


@pytest.mark.parametrize("values", [{}, {"TOKEN": ""}])
def test_a_variable_that_is_not_set_is_named_with_where_to_set_it(values: dict[str, str]) -> None:
    url = "https://${TOKEN}@host/simple"
    for give, field in (
        (indexes.environment, "python.extra_index_urls"),
        (indexes.find_links, "python.find_links"),
    ):
        with pytest.raises(Failure) as caught:
            give([url], values)
        assert str(caught.value) == (
            f"the variable TOKEN isn't set, and {field} needs it: set it, "
            "or put it into .env.local beside the machine file"
        )
