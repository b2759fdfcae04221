"""What Hugging Face says of a file on the way to it, and its download with a token."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfy_machine.host.downloads import remote_file
from comfy_machine.host.downloads.download_request import Downloaded, DownloadRequest
from comfy_machine.host.downloads.store import Store
from comfy_machine.host.downloads.web import Tolerance, Web
from comfy_machine.host.storage.disk_space import DiskSpace
from comfy_machine.host.system.failure import Failure
from tests.proxy import Internet, Reply, internet, moved

URL = "https://huggingface.co/me/model/resolve/main/x.bin"
CDN = "https://cas-bridge.xethub.hf.example/x?X-Amz-Signature=abc"
COMMIT = "0123456789abcdef" * 2 + "01234567"
PINNED = f"https://huggingface.co/me/model/resolve/{COMMIT}/x.bin"
BODY = b"model" * 5000
DIGEST = hashlib.sha256(BODY).hexdigest()
SAYS = {"X-Linked-Etag": f'"{DIGEST}"', "X-Repo-Commit": COMMIT, "ETag": '"of the redirect"'}


class Silent:
    def begin(self, name: str, total: int | None, done: int = 0) -> None: ...
    def advance(self, name: str, count: int) -> None: ...


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    with internet(tmp_path, monkeypatch) as net:
        net.at(CDN, Reply(206, BODY, {"ETag": '"of the file"'}))
        yield net


def web() -> Web:
    quick = Tolerance(connect=5, read=2, attempts=3, backoff=0.01)
    return Web(
        tokens={"huggingface.co": "${HF_TOKEN}"}, environ={"HF_TOKEN": "s3cret"}, tolerance=quick
    )


def fetch(folder: Path, url: str = URL, sha256: str | None = None) -> Downloaded:
    return Store(folder).fetch(
        DownloadRequest("x.bin", url, sha256), web(), DiskSpace(folder), Silent()
    )


def files(folder: Path) -> set[bytes]:
    """The contents of what lies in a store under a sha256, or is on its way there."""
    return {file.read_bytes() for file in folder.iterdir() if file.suffix in ("", ".part")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


def test_what_the_host_says_counts_though_it_sends_us_elsewhere(net: Internet) -> None:
    net.at(URL, moved(CDN, **SAYS))
    found = remote_file.ask(URL, "x.bin", web())
    assert (found.sha256, found.pinned, found.version.size) == (DIGEST, PINNED, len(BODY))
    assert found.version.etag == '"of the file"'
    assert [asked.headers["range"] for asked in net.asked] == ["bytes=0-0"] * 2


def test_a_repository_that_was_renamed_still_says_it(net: Internet) -> None:
    new = "https://huggingface.co/you/renamed/resolve/main/x.bin"
    for address in (new, new.replace(".co/", ".co:443/"), "/you/renamed/resolve/main/x.bin"):
        net.at(URL, Reply(307, headers={"Location": address}))
        net.at(new, moved(CDN, **SAYS))
        found = remote_file.ask(URL, "x.bin", web())
        assert (found.sha256, found.pinned) == (DIGEST, PINNED)


def test_what_another_host_says_of_a_sha256_or_commit_does_not_count(net: Internet) -> None:
    net.at(URL, moved(CDN))
    net.at(CDN, Reply(206, BODY, SAYS))
    found = remote_file.ask(URL, "x.bin", web())
    assert (found.sha256, found.pinned) == (None, None)


@pytest.mark.parametrize(
    ("etag", "sha256"),
    [(f'"{DIGEST}"', DIGEST), (DIGEST, DIGEST), (f'"{COMMIT}"', None),
     (f'W/"{DIGEST}"', None), ("", None), (f'"{DIGEST}0"', None), ('"../../etc"', None)],
)  # fmt: skip
def test_only_a_sha256_is_taken_for_one(net: Internet, etag: str, sha256: str | None) -> None:
    net.at(URL, moved(CDN, **{"X-Linked-Etag": etag}))
    assert remote_file.ask(URL, "x.bin", web()).sha256 == sha256


@pytest.mark.parametrize(
    ("url", "pinned"),
    [
        ("/gpt2/resolve/main/x", f"/gpt2/resolve/{COMMIT}/x"),
        ("/me/model/resolve/refs%2Fpr%2F1/a/x", f"/me/model/resolve/{COMMIT}/a/x"),
        ("/datasets/me/d/resolve/main/x", f"/datasets/me/d/resolve/{COMMIT}/x"),
        ("/me/model/resolve/main/resolve/v/x", f"/me/model/resolve/{COMMIT}/resolve/v/x"),
        ("/me/resolve/resolve/main/x", f"/me/resolve/resolve/{COMMIT}/x"),
        ("/api/models/me/model", None),
    ],
)
def test_the_pinned_address_names_the_commit_in_the_revision_s_place(
    net: Internet, url: str, pinned: str | None
) -> None:
    host = "https://huggingface.co"
    net.at(host + url, Reply(200, BODY, {"X-Repo-Commit": COMMIT}))
    assert remote_file.ask(host + url, "x", web()).pinned == (host + pinned if pinned else None)


@pytest.mark.parametrize("commit", ["", "main", r"\g<9>", "../../evil/x/resolve/main", "a" * 41])
def test_what_is_no_commit_pins_nothing(net: Internet, commit: str) -> None:
    net.at(URL, moved(CDN, **{"X-Repo-Commit": commit}))
    assert remote_file.ask(URL, "x", web()).pinned is None


@pytest.mark.parametrize(
    "reply",
    [
        Reply(206, headers={"Content-Range": "bytes 0-0/" + "9" * 5000}),
        Reply(206, headers={"Content-Range": "bytes 0-0/*"}),
        Reply(416, b"no such range", {"Content-Range": "bytes */0"}),
    ],
)
def test_a_length_that_can_not_be_read_is_not_known(net: Internet, reply: Reply) -> None:
    headers = {"Content-Length": "0"} if reply.status == 206 else {}
    net.at("https://host.example/x", Reply(reply.status, reply.body, reply.headers | headers))
    size = remote_file.ask("https://host.example/x", "x", web()).version.size
    assert size in (None, 0)
    assert size is None or reply.status == 206


def test_a_server_without_ranges_says_the_length_of_the_whole(net: Internet) -> None:
    net.at(URL, Reply(200, BODY))
    assert remote_file.ask(URL, "x", web()).version.size == len(BODY)


# The whole download


def test_a_file_of_hugging_face_comes_with_a_token_that_its_cdn_never_sees(
    net: Internet, folder: Path
) -> None:
    net.at(URL, moved(CDN, **SAYS))
    got = fetch(folder)
    assert (got.sha256, got.size, got.pinned) == (DIGEST, len(BODY), PINNED)
    assert (folder / DIGEST).read_bytes() == BODY
    assert net.tokens == [(URL, "Bearer s3cret"), (CDN, None)]
    assert not any("s3cret" in str(asked.headers) for asked in net.asked if asked.url == CDN)
    assert not any(b"s3cret" in file.read_bytes() for file in folder.iterdir())


def test_a_file_that_is_there_already_is_only_asked_about(net: Internet, folder: Path) -> None:
    net.at(URL, moved(CDN, **SAYS))
    fetch(folder)
    net.asked.clear()
    assert fetch(folder).sha256 == DIGEST
    assert [asked.headers["range"] for asked in net.asked] == ["bytes=0-0"] * 2


def test_a_file_that_is_not_what_the_host_said_is_refused(net: Internet, folder: Path) -> None:
    other = "0" * 64
    net.at(URL, moved(CDN, **SAYS | {"X-Linked-Etag": f'"{other}"'}))
    with pytest.raises(Failure) as caught:
        fetch(folder)
    assert f"its sha256 is {DIGEST}, {other} was expected" in str(caught.value)
    assert files(folder) == set()


def test_a_file_that_the_host_says_is_another_is_not_even_fetched(
    net: Internet, folder: Path
) -> None:
    net.at(URL, moved(CDN, **SAYS))
    with pytest.raises(Failure) as caught:
        fetch(folder, sha256="0" * 64)
    assert f"its sha256 is {DIGEST}, {'0' * 64} was expected" in str(caught.value)
    assert [asked.url for asked in net.asked] == [URL, CDN]
    assert files(folder) == set()


def test_a_gated_file_without_the_right_token_leaves_nothing(net: Internet, folder: Path) -> None:
    net.at(URL, Reply(403))
    with pytest.raises(Failure, match=r"^x\.bin: huggingface\.co answers 403 .* token in HF_TOKEN"):
        fetch(folder)
    assert len(net.asked) == 1
    assert list(folder.iterdir()) == []


def test_a_file_comes_though_its_cdn_fails_now_and_then(net: Internet, folder: Path) -> None:
    net.at(URL, moved(CDN, **SAYS))
    whole = net.replies[CDN][0]
    net.at(CDN, Reply(503), Reply(breaks=True), Reply(206, BODY, whole.headers, short=9000), whole)
    assert fetch(folder).sha256 == DIGEST
    assert (folder / DIGEST).read_bytes() == BODY
    assert {token for url, token in net.tokens if url == CDN} == {None}
