"""Whom the health server lets in: by the ends of the connection, the token and the Host header."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import Message

from comfy_machine.services.health.web.guard import Guard

TOKEN = "s3cret-42"
HOME = "127.0.0.1"
AWAY = "192.0.2.7"


def ask(
    token: str = "",
    *,
    client: str | None = HOME,
    server: str | None = HOME,
    path: str = "/health/comfyui",
    host: str = "localhost:9090",
    authorization: bytes | None = None,
) -> int:
    """The code that comes back; 200 when it was let in."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", host.encode("latin-1"))]
    if authorization is not None:
        headers.append((b"authorization", authorization))
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": path,
        "client": None if client is None else (client, 50000),
        "server": None if server is None else (server, 9090),
        "headers": headers,
    }
    asyncio.run(Guard(Response("in"), token)(scope, receive, send))
    if sent[0]["status"] != 200:
        said = json.loads(sent[1]["body"])
        assert (said["status"], bool(said["reason"]), bool(said["advice"])) == ("error", True, True)
        assert token not in str(sent) or not token
        challenged = any(name == b"www-authenticate" for name, _ in sent[0]["headers"])
        assert challenged is (sent[0]["status"] == 401), "a browser asks for it"
    return int(sent[0]["status"])


def bearer(token: str) -> bytes:
    return b"Bearer " + token.encode()


def basic(token: str, user: str = "") -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{token}".encode())


@pytest.mark.parametrize("end", [HOME, "127.9.8.7", "::1", "::ffff:127.0.0.1"])
def test_without_a_token_those_on_this_machine_are_let_in(end: str) -> None:
    assert ask(client=end, server=end) == 200


@pytest.mark.parametrize("end", [AWAY, "2001:db8::1", "::ffff:192.0.2.7", "0.0.0.0", "", None, "x"])
def test_without_a_token_nobody_else_is_at_either_end(end: str | None) -> None:
    assert ask(client=end) == 403
    assert ask(server=end) == 403, "it was sent to an address of the network"
    for path in ("/livez", "/readyz"):
        assert ask(client=end, server=end, path=path) == 200
        assert ask(TOKEN, client=end, server=end, path=path) == 200
    for path in ("/", "/metrics", "/openapi.json", "/livez/", "//livez", "/livez/../metrics"):
        assert ask(client=end, path=path) == 403


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9090", "127.0.0.1:9090", "[::1]:9090", "127.1.2.3"]
)
def test_this_machine_has_some_names(host: str) -> None:
    assert ask(host=host) == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil@192.0.2.7", "",
     "192.0.2.7:9090", "[", "[::1", "[x]", "[::1]x.example", "local\xefhost", "/localhost"],
)  # fmt: skip
def test_a_page_of_the_web_that_gives_it_another_name_is_refused(host: str) -> None:
    assert ask(host=host) == 403
    assert ask(TOKEN, host=host, authorization=bearer(TOKEN)) == 200, "the token proves who asks"


@pytest.mark.parametrize("token", [TOKEN, "pä:ss wörd-密码-🔑", "a" * 500, "tok=en=="])
def test_the_token_opens_from_anywhere_and_nothing_else_does(token: str) -> None:
    for end in (HOME, AWAY):
        ends: dict[str, Any] = {"client": end, "server": end}
        assert ask(token, **ends, authorization=bearer(token)) == 200
        assert ask(token, **ends, authorization=basic(token)) == 200
        assert ask(token, **ends, authorization=basic(token, "anybody")) == 200
        assert ask(token, **ends, authorization=b"bEaReR  " + token.encode()) == 200
        assert ask(token, **ends) == 401
        for wrong in (token[:-1], f"{token}x", "", token.upper() + "!"):
            assert ask(token, **ends, authorization=bearer(wrong)) == 401
            assert ask(token, **ends, authorization=basic(wrong)) == 401


@pytest.mark.parametrize(
    "header",
    [b"", b"s3cret-42", b"Bearer", b"Bearers3cret-42", b"Basic", b"Basic s3cret-42", b"Basic =",
     b"Basic \xff", b"Basic " + base64.b64encode(b"s3cret-42"),
     b"Basic " + base64.b64encode(b":\xff\xfe"), b"Digest s3cret-42", b"Bearer \xff\xfe",
     b"Bearer s3cret-42, Bearer s3cret-42", b"Bearer s3cr\xc3\xb6t-42"],
)  # fmt: skip
def test_what_is_no_token_is_refused_in_words(header: bytes) -> None:
    assert ask(TOKEN, authorization=header) == 401


def test_the_end_of_the_line_of_the_file_that_it_came_from_is_no_part_of_a_token() -> None:
    assert ask(f" {TOKEN}\n", authorization=bearer(TOKEN)) == 200
    assert ask("\n", client=AWAY) == 403, "there is none"
    assert ask("\n") == 200


def test_bytes_of_the_environment_that_are_no_text_may_be_a_token() -> None:
    token = b"s3cr\xf6t".decode("utf-8", "surrogateescape")
    assert ask(token, authorization=b"Bearer s3cr\xf6t") == 200
    assert ask(token, authorization=b"Bearer s3cret") == 401
