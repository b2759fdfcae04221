"""How far uv is: what its log says, and a real uv in the middle of an installation."""

from __future__ import annotations

import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from comfy_machine.host.python import uv, uv_progress
from tests.contract.client import until
from tests.wheels import wheel

LOG = """Using Python 3.11.7 environment at: venv
Resolved 34 packages in 2.68s
Downloading large0 (1.0GiB)
Downloading large2 (5.5MiB)
Downloading large1 (512.0MiB)
"""


@pytest.mark.parametrize(
    ("more", "percent", "words"),
    [
        ("", 0, "0 B of 1.6 GB, 34 packages, 0 of 3 large ones"),
        (
            " Downloaded large2\n Downloaded large0\n",
            67,
            "1.1 GB of 1.6 GB, 54.0 MB/s, 34 packages, 2 of 3 large ones",
        ),
        ("Downloading large2 (5.5MiB)\n", 0, "0 B of 1.6 GB, 34 packages, 0 of 3 large ones"),
        ("\x00 Downloaded lar", 0, "0 B of 1.6 GB, 34 packages, 0 of 3 large ones"),
    ],
)
def test_the_log_tells_how_many_bytes_are_there(more: str, percent: int, words: str) -> None:
    told, said = uv_progress.share("34 packages", LOG + more, 20)
    assert said == words
    assert round(told or 0) == percent


def test_without_a_large_download_there_is_no_percent() -> None:
    assert uv_progress.share("3 packages", "Resolved 3 packages in 2ms\n") == (None, "3 packages")


@contextmanager
def half_served(folder: Path, name: str, gate: threading.Event) -> Iterator[str]:
    """The URL of a folder's files; of one the second half comes when `gate` is set."""

    class Handler(SimpleHTTPRequestHandler):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            content = source.read()
            outputfile.write(content[: len(content) // 2])
            if name in self.path:
                outputfile.flush()
                gate.wait(60)
            outputfile.write(content[len(content) // 2 :])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            gate.set()
            server.shutdown()
            thread.join()


def test_an_installation_is_followed_while_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("one", "two"):
        with zipfile.ZipFile(wheel(tmp_path / "simple" / name, name, "1.0"), "a") as archive:
            archive.writestr(f"{name}/blob", os.urandom(1_090_000))
    log, venv, packages = tmp_path / "log", tmp_path / "venv", tmp_path / "packages.txt"
    packages.write_text("one==1.0\ntwo==1.0\n")
    uv.make_environment(venv, Path(sys.executable), log)
    heard: list[tuple[float | None, str]] = []
    gate = threading.Event()

    def install(url: str) -> None:
        with uv_progress.following(log, "2 packages", lambda *far: heard.append(far)):
            uv.sync(venv, packages, [], {"UV_DEFAULT_INDEX": f"{url}/simple"}, log)

    with half_served(tmp_path, "two-1.0", gate) as url, ThreadPoolExecutor(1) as pool:
        installing = pool.submit(install, url)

        def half() -> bool:
            return any(
                percent == 50 and said.startswith("1.0 MB of 2.1 MB, ")
                and said.endswith("2 packages, 1 of 2 large ones")
                for percent, said in heard
            )  # fmt: skip

        until(lambda: half() or installing.done(), 20, "one of them to be there")
        gate.set()
        installing.result()
    assert heard[0] == (None, "2 packages")
    assert half(), heard
    assert len(list(uv.site_packages(venv).glob("*-1.0.dist-info"))) == 2
