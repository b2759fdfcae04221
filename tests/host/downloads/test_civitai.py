"""Civitai's newest version of a model, and the odd things that an API may answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_machine.host.downloads import civitai
from comfy_machine.host.downloads.web import Tolerance, Web
from comfy_machine.host.system.failure import Failure
from tests.proxy import Internet, Reply, internet, moved

PAGE = "https://civitai.com/models/4384"
API = "https://civitai.com/api/v1/models/4384"
DIGEST = "AB" * 32


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    with internet(tmp_path, monkeypatch) as net:
        yield net


def newest() -> tuple[str, str | None]:
    web = Web(
        {"civitai.com": "${CIVITAI_TOKEN}"},
        {"CIVITAI_TOKEN": "s3cret"},
        Tolerance(connect=5, read=5, attempts=2, backoff=0.01),
    )
    return civitai.newest(PAGE, "x.pt", web)


def model(*versions: Any) -> Reply:
    return Reply(body=json.dumps({"id": 4384, "modelVersions": versions}).encode())


def file(sha256: Any = DIGEST, **fields: Any) -> dict[str, Any]:
    return {"name": "x.safetensors", "primary": True, "hashes": {"SHA256": sha256}, **fields}


@pytest.mark.parametrize(
    ("url", "page"),
    [
        (PAGE, True),
        ("https://civitai.com/api/download/models/1", False),
        ("https://evil.example/models/4384", False),
        ("https://civitai.com.evil.example/models/4384", False),
        ("http://civitai.com/models/4384", False),
        (f"{PAGE}/x", False),
        (f"{PAGE}\n", False),
    ],
)
def test_a_page_is_told_from_a_download(url: str, page: bool) -> None:
    assert civitai.is_page(url) is page


def test_the_newest_version_comes_first_and_is_asked_for_with_the_token(net: Internet) -> None:
    net.at(API, model({"id": 9, "files": [file("CD" * 32, primary=False), file()]}, {"id": 8}))
    assert newest() == ("https://civitai.com/api/download/models/9", DIGEST.lower())
    assert net.tokens == [(API, "Bearer s3cret")]


@pytest.mark.parametrize(
    "version",
    [{}, {"files": None}, {"files": []}, {"files": 5}, {"files": [5]}, {"files": [{}]},
     {"files": [file(primary=False)]}, {"files": [file(None)]}, {"files": [file("abc")]},
     {"files": [{"primary": True}]}, {"files": [file(hashes=None)]}, {"files": [file(hashes={})]},
     {"files": [file({"x": 1})]}],
)  # fmt: skip
def test_a_version_without_a_sha256_is_one_all_the_same(
    net: Internet, version: dict[str, Any]
) -> None:
    net.at(API, model({"id": 9} | version))
    assert newest() == ("https://civitai.com/api/download/models/9", None)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>s3cret</html>", id="a page"),
        pytest.param(b"\xff\xfe\x00", id="bytes"),
        pytest.param(b"[" * 1_000_000, id="too deep"),
        pytest.param(b'{"modelVersions":' * 100_000, id="too deep a mapping"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"5", id="a number"),
        pytest.param(b"{}", id="an empty mapping"),
        pytest.param(b'{"error": "s3cret"}', id="an error"),
        pytest.param(b'{"modelVersions": []}', id="no version"),
        pytest.param(b'{"modelVersions": null}', id="null versions"),
        pytest.param(b'{"modelVersions": {"0": 1}}', id="a mapping of versions"),
        pytest.param(b'{"modelVersions": "abc"}', id="text for versions"),
        pytest.param(b'{"modelVersions": [{}]}', id="no id"),
        pytest.param(b'{"modelVersions": [{"id": "../../x"}]}', id="a path for an id"),
        pytest.param(b'{"modelVersions": [{"id": null}]}', id="a null id"),
        pytest.param(b'{"modelVersions": [{"id": Infinity}]}', id="an endless id"),
        pytest.param(b'{"modelVersions": [{"id": NaN}]}', id="an id that is no number"),
        pytest.param(b'{"modelVersions": [{"id": ' + b"9" * 9999 + b"}]}", id="a long id"),
        pytest.param(b'{"modelVersions": [{"id": 1}]}' + b" " * (20 << 20), id="20 MB"),
    ],
)
def test_an_answer_that_says_nothing_gives_one_line(net: Internet, body: bytes) -> None:
    net.at(API, Reply(body=body))
    with pytest.raises(Failure) as caught:
        newest()
    assert str(caught.value) == "x.pt: Civitai names no version: copy the link of a version"
    assert len(net.asked) == 1


def test_an_answer_that_breaks_off_is_asked_for_again(net: Internet) -> None:
    whole = model({"id": 9})
    net.at(API, Reply(body=whole.body, short=5), Reply(503), whole)
    with pytest.raises(Failure, match=r"^x\.pt: civitai\.com answers 503 .*\(2 tries\)"):
        newest()
    assert newest()[0].endswith("/9")


def test_a_model_that_is_gone_fails_at_once(net: Internet) -> None:
    net.at(API, Reply(404))
    with pytest.raises(Failure, match=r"^x\.pt: civitai\.com answers 404 Not Found: correct the"):
        newest()
    assert len(net.asked) == 1


def test_an_api_that_moves_to_another_host_gets_no_token_there(net: Internet) -> None:
    net.at(API, moved("https://api.example/4384"))
    net.at("https://api.example/4384", model({"id": 9}))
    assert newest()[0] == "https://civitai.com/api/download/models/9"
    assert [token for _, token in net.tokens] == ["Bearer s3cret", None]
