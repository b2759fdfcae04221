"""What ComfyUI's page needs beside jobs: the gateway has it from one instance."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.contract.client import until
from tests.services.gateway import double_of_home
from tests.services.gateway.conftest import SAVE, Gateway
from tests.services.gateway.double_of_home import FILE, PAGE, Home
from tests.services.gateway.double_of_workers import Workers
from tests.services.jobs.conftest import Server


@pytest.fixture
def home(server: Server, gateway: Gateway) -> Iterator[Home]:
    with double_of_home.home() as it:
        workers = Workers(server.url, gateway.workspace, it.url)
        until(lambda: gateway.ask("GET", "/").status_code == 200, 20, "the instance")
        it.asked.clear()
        try:
            yield it
        finally:
            workers.end()


def raw(gateway: Gateway, path: str, method: str = "GET") -> tuple[int, bytes]:
    """The answer to a path that no client would send."""
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    connection.request(method, path)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def test_without_an_instance_there_is_no_page(gateway: Gateway, workers: Workers) -> None:
    answer = gateway.ask("GET", "/")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert gateway.ask("GET", "/features").json() == {"supports_preview_metadata": True}


def test_the_page_comes_as_the_instance_sends_it(gateway: Gateway, home: Home) -> None:
    answer = gateway.ask("GET", "/?a=%2F", headers={"Cookie": "c=d", "Comfy-User": "me"})
    assert (answer.status_code, answer.content) == (200, PAGE)
    assert (answer.headers["Etag"], answer.headers["Content-Type"]) == ('"1"', "text/html")
    assert not {"Set-Cookie", "Keep-Alive"} & set(answer.headers)
    ((method, path, headers, _),) = home.asked
    assert (method, path, headers["comfy-user"]) == ("GET", "/?a=%2F", "me")
    assert headers["host"] == home.url.removeprefix("http://")
    assert not {"cookie", "origin", "authorization"} & set(headers)
    assert gateway.ask("GET", "/big.js").content == FILE
    part = gateway.ask("GET", "/big.js", headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")
    assert part.headers["Content-Range"] == "bytes 2-4/10000"
    head = gateway.ask("HEAD", "/big.js")
    assert (head.headers["Content-Length"], head.content) == ("10000", b"")
    assert gateway.ask("GET", "/none").status_code == 404
    assert "Location" not in gateway.ask("GET", "/moved", allow_redirects=False).headers


def test_the_token_isnt_passed_on(server: Server, gateway: Gateway, home: Home) -> None:
    gateway.ask("GET", "/", headers={"Authorization": "Bearer secret"})
    assert "authorization" not in home.asked[0][2]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/settings"),
        ("POST", "/api/settings/Comfy.Locale"),
        ("POST", "/api/userdata/workflows%2Fa.json"),
        ("DELETE", "/api/userdata/workflows%2Fa.json"),
        ("POST", "/api/userdata/a/move/b"),
        ("POST", "/api/users"),
    ],
)
def test_what_the_page_stores_reaches_the_instance(
    gateway: Gateway, home: Home, method: str, path: str
) -> None:
    answer = gateway.ask(method, path, data=b'{"a": 1}')
    assert (answer.status_code, answer.content) == (200, b'{"a": 1}')
    assert [(m, p, body) for m, p, _, body in home.asked] == [(method, path, b'{"a": 1}')]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("POST", "/free", 403),
        ("POST", "/api/free", 403),
        ("POST", "/internal/logs/subscribe", 403),
        ("PUT", "/unknown", 403),
        ("POST", "/", 403),
        ("POST", "/userdata/a/../../free", 403),
        ("GET", "/manager/reboot", 403),
        ("GET", "/api/Manager/queue/start", 403),
        ("GET", "/v2/manager/reboot", 403),
        ("GET", "/api/v2/snapshot/save", 404),
        ("GET", "/%6danager/reboot", 403),
        ("GET", "//manager/reboot", 400),
        ("GET", "/a/..%2Fmanager/reboot", 400),
        ("GET", "/a/%2e%2e/manager/reboot", 400),
        ("GET", "/a%5C..%5Cb", 400),
        ("GET", "/a%00", 400),
        ("GET", "/api/v2/nothing", 404),
        ("DELETE", "/prompt", 405),
    ],
)
def test_what_would_change_one_instance_is_refused(
    gateway: Gateway, home: Home, method: str, path: str, code: int
) -> None:
    found, text = raw(gateway, path, method)
    assert found == code, text
    assert home.asked == []
    if code == 403:
        assert home.url.encode() in text


def test_an_instance_that_breaks_off_or_is_away(gateway: Gateway, home: Home) -> None:
    with pytest.raises(requests.exceptions.RequestException):
        gateway.ask("GET", "/cut")
    assert gateway.ask("GET", "/").status_code == 200
    home.shutdown()
    home.server_close()
    answer = gateway.ask("GET", "/big.js")
    assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)


def test_a_client_that_leaves_and_one_that_says_too_much(gateway: Gateway, home: Home) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
    answer = gateway.ask("GET", "/big.js", data=b"a body that nobody asked for")
    assert (answer.status_code, answer.content) == (200, FILE)
    assert home.asked[-1][3] == b"", "it isn't passed on"
    elsewhere = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert gateway.ask("GET", "/big.js", headers=elsewhere).status_code == 403
    elsewhere["Sec-Fetch-Mode"] = "navigate"
    assert gateway.ask("GET", "/", headers=elsewhere).status_code == 200
    answer = gateway.ask("POST", "/api/userdata/a", headers={"Content-Length": str(1 << 40)})
    assert answer.status_code == 413


def test_features_and_versions_are_those_of_the_instance(gateway: Gateway, home: Home) -> None:
    home.answers["/features"] = {"max_upload_size": 5, "assets": True, "extension": {}}
    home.answers["/system_stats"] = {"system": {"comfyui_version": "0.33.0"}, "devices": []}
    found = gateway.ask("GET", "/api/features").json()
    assert found == {"max_upload_size": 5, "supports_preview_metadata": True}
    stats = gateway.ask("GET", "/system_stats").json()
    assert stats["system"]["comfyui_version"] == "0.33.0"
    assert [each["name"] for each in stats["devices"]] == ["machine_gpu0"]


def test_smaller_pictures_are_made_by_the_instance(gateway: Gateway, home: Home) -> None:
    home.answers["/view"] = "small"
    job = gateway.submit(SAVE)["id"]
    (output,) = gateway.job(job, wait=10)["outputs"]
    place = {"filename": output["name"], "subfolder": f"jobs/{job}", "type": "output"}

    def view(**more: Any) -> bytes:
        return gateway.ask("GET", "/view", params=place | more).content

    assert view() == view(channel="rgba") == b"0123456789"
    assert home.asked == []
    assert view(preview="webp;50", channel="rgb") == b'"small"'
    ((_, path, _, _),) = home.asked
    assert path.startswith("/view?preview=webp%3B50&channel=rgb&filename=")
    assert path.endswith(".part&subfolder=.uploads&type=input")
    del home.answers["/view"]
    assert view(channel="a") == b"0123456789", "the whole where none is made"
    assert not [*(gateway.workspace / "shared" / "inputs" / ".uploads").iterdir()]


def test_a_mask_is_put_into_a_picture_by_the_instance(gateway: Gateway, home: Home) -> None:
    home.answers["/upload/mask"] = {"name": "mask.png", "subfolder": "clipspace", "type": "input"}
    job = gateway.submit(SAVE)["id"]
    gateway.job(job, wait=10)
    place = {"filename": "image_00001_.png", "subfolder": f"jobs/{job}", "type": "temp"}

    def masked(reference: str, code: int = 200, **fields: str) -> Any:
        answer = gateway.ask(
            "POST", "/api/upload/mask", files={"image": ("mask.png", b"the mask", "image/png")},
            data={"original_ref": reference, "subfolder": "clipspace", **fields},
        )  # fmt: skip
        assert answer.status_code == code, answer.text
        return answer.json()

    assert masked(json.dumps(place), type="input") == home.answers["/upload/mask"]
    ((_, path, _, body),) = home.asked
    assert path == "/upload/mask"
    for each in (b"the mask", b"clipspace", b'"subfolder": ".uploads", "type": "input"'):
        assert each in body
    assert job.encode() not in body
    for strange in ("", "{}", "[]", "null", json.dumps({**place, "filename": "none.png"})):
        masked(strange, 400)
    masked(json.dumps(place), 400, type="output")
    assert not [*(gateway.workspace / "shared" / "inputs" / ".uploads").iterdir()]
