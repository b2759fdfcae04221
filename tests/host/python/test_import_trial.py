"""Why a module doesn't import: the exception that is behind the one that was raised last."""

from __future__ import annotations

import ctypes
import errno
import http.server
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_machine.host.python import import_trial
from comfy_machine.host.python.import_trial import Broken
from comfy_machine.services.inside.errors import describe


def load() -> None:
    raise OSError("undefined symbol")


def declared() -> None:
    try:
        load()
    except OSError as error:
        raise RuntimeError("can't load the extension") from error


def undeclared() -> None:
    try:
        load()
    except OSError:
        raise RuntimeError("can't load the extension")  # noqa: B904


def hidden() -> None:
    try:
        load()
    except OSError:
        raise RuntimeError("this says all") from None


def second_attempt() -> None:
    try:
        raise ModuleNotFoundError("the fast one is optional")
    except ModuleNotFoundError:
        load()


def twice() -> None:
    try:
        undeclared()
    except RuntimeError as error:
        raise ImportError("the package needs its extension") from error


def root(error: BaseException) -> object:
    found = describe(error)
    return found.get("root", found)["message"]


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        (load, "undefined symbol"),
        (declared, "undefined symbol"),
        (undeclared, "undefined symbol"),
        (hidden, "this says all"),
        (second_attempt, "undefined symbol"),
        (twice, "undefined symbol"),
    ],
)
def test_the_root_of_an_exception_is_what_it_speaks_of(
    fails: Callable[[], None], said: str
) -> None:
    with pytest.raises(Exception, match=r".") as caught:
        fails()
    assert root(caught.value) == said


def test_a_circle_of_exceptions_has_an_end() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert root(one) == "other"


def test_a_library_that_the_loader_does_not_find_is_named() -> None:
    with pytest.raises(OSError, match=r".") as caught:
        ctypes.CDLL("libno-such-driver.so.1")
    assert describe(caught.value)["library"] == "libno-such-driver.so.1"


def test_where_a_socket_was_to_be_bound_is_told_by_who_binds_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for bind in (
            lambda: http.server.HTTPServer(("127.0.0.1", port), http.server.BaseHTTPRequestHandler),
            lambda: socket.create_server(("127.0.0.1", port)),
        ):
            with pytest.raises(OSError, match=r"in use") as caught:
                bind()
            told = describe(caught.value)
            assert (told["errno"], told["address"]) == (errno.EADDRINUSE, f"127.0.0.1:{port}")
        with socket.socket() as bare, pytest.raises(OSError, match=r"in use") as caught:
            bare.bind(taken.getsockname())
        assert describe(caught.value)["address"] is None


def test_modules_are_tried_in_their_order_up_to_the_first_that_fails(tmp_path: Path) -> None:
    python = Path(sys.executable)
    tried = import_trial.attempt(
        python, ["json", "no_such_module", "this"], os.environ, tmp_path, tmp_path / "log"
    )
    assert list(tried.imported) == ["json"]
    assert tried.broken
    assert tried.broken.shown == "ModuleNotFoundError: No module named 'no_such_module'"
    assert "Traceback" in (tmp_path / "log").read_text()


def test_one_that_does_not_end_is_ended_and_says_nothing_of_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper = tmp_path / "python"
    sleeper.write_text("#!/bin/sh\nexec sleep 600\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(import_trial, "TIMEOUT", 0.2)
    tried = import_trial.attempt(sleeper, ["torch"], os.environ, tmp_path, tmp_path / "log")
    assert tried.broken == Broken(
        "torch", "", "its process python ran longer than 0.2 s", final=False
    )
