"""A private repository: the credentials that git was given are in nothing that stays or is said."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_machine.host.repositories import git, remotes
from comfy_machine.host.system.failure import Failure
from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.servers import git_server

RIGHT, WRONG = "r1ght-t0ken", "wr0ng-t0ken"


@pytest.fixture
def private(forge: Forge) -> Iterator[str]:
    """The URL of a forge whose repositories want a token."""
    forge.folder.mkdir(exist_ok=True)
    with git_server(forge.folder, f"me:{RIGHT}") as (url, _):
        yield url


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def settings(url: str, credentials: str) -> dict[str, str]:
    """Variables by which git sends credentials to a host, as people give them in CI."""
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{url.replace('://', f'://{credentials}@')}/.insteadOf",
        "GIT_CONFIG_VALUE_0": f"{url}/",
    }


def encoded(credentials: str) -> str:
    """Credentials as an Authorization header of the kind Basic has them."""
    return base64.b64encode(credentials.encode()).decode()


def holding(folder: Path, *words: str) -> list[Path]:
    """The files below a folder that hold one of these words."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and any(word.encode() in path.read_bytes() for word in words)
    ]


@pytest.mark.parametrize("how", ["insteadOf", "a settings file", "extraHeader"])
def test_the_right_token_clones_and_is_written_nowhere(
    forge: Forge, private: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    inner = forge.repository("inner", {"file": "inner"})
    outer = forge.repository("outer")
    outer.git("-c", "protocol.file.allow=always", "submodule", "add", inner.url, "inner")
    outer.git("config", "--file", ".gitmodules", "submodule.inner.url", "../inner/.git")
    outer.commit({})
    header = f"Authorization: Basic {encoded(f'me:{RIGHT}')}"
    if how == "insteadOf":
        for name, value in settings(private, f"me:{RIGHT}").items():
            monkeypatch.setenv(name, value)
    elif how == "extraHeader":
        for name, value in settings(private, "").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("GIT_CONFIG_KEY_0", f"http.{private}/.extraHeader")
        monkeypatch.setenv("GIT_CONFIG_VALUE_0", header)
    else:
        config = tmp_path.with_name(f"{tmp_path.name}.gitconfig")
        config.write_text(
            f'[url "{private.replace("://", f"://me:{RIGHT}@")}/"]\ninsteadOf = {private}/\n'
        )
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    url = f"{private}/outer/.git"
    there = tmp_path / "there"
    remotes.checkout(url, remotes.resolve(url, "main"), there, recursive=True)
    assert (there / "inner" / "file").read_text() == "inner"
    assert holding(tmp_path, RIGHT, encoded(f"me:{RIGHT}")) == []


@pytest.mark.parametrize("credentials", [f"me:{WRONG}", WRONG])
def test_the_wrong_token_is_told_as_private_and_repeated_nowhere(
    private: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, credentials: str
) -> None:
    for name, value in settings(private, credentials).items():
        monkeypatch.setenv(name, value)
    url = f"{private}/outer/.git"
    with pytest.raises(Failure) as caught:
        remotes.resolve(url, "main")
    assert str(caught.value).startswith(f"{url} isn't there, or it is private: correct the url")
    assert holding(tmp_path, WRONG) == []


def test_the_gist_of_an_error_in_which_git_repeats_a_token_has_none(
    private: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings(private, WRONG).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(git.error_type()) as caught:
        git.command().ls_remote("--", f"{private}/outer/.git")
    assert WRONG in str(caught.value.stderr)
    masked = private.replace("://", "://***@")
    assert git.gist(caught.value).startswith(
        f"fatal: could not read Password for '{masked}': terminal prompts disabled"
    )


def test_git_that_was_told_to_trace_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_TRACE", "GIT_TRACE_CURL", "GIT_TRACE2_EVENT", "GIT_CURL_VERBOSE"):
        monkeypatch.setenv(name, "1")
    git.forget_the_callers_repository()
    assert not [name for name in os.environ if name.startswith(("GIT_TRACE", "GIT_CURL"))]


@pytest.mark.parametrize("how", ["right", "wrong"])
def test_no_file_and_no_line_of_a_whole_run_has_the_token(
    machine: MachineMaker, forge: Forge, private: str, tmp_path: Path, how: str
) -> None:
    forge.node("alpha")
    rig = machine(custom_nodes=[{"url": f"{private}/alpha/.git", "name": "alpha"}])
    token = RIGHT if how == "right" else WRONG
    rig.env |= settings(private, f"me:{token}") | {"GIT_TRACE": "1", "GIT_CURL_VERBOSE": "1"}
    run = rig.doit("nodes", code=0 if how == "right" else 2)
    assert run.executed == ({"directories", "nodes:alpha"} if how == "right" else {"directories"})
    assert ("alpha/.git isn't there, or it is private" in run.output) == (how == "wrong")
    assert token not in run.output
    assert holding(tmp_path, token) == []
