"""Credentials in somebody else's text."""

from __future__ import annotations

import pytest

from comfy_machine.host.system.redaction import redact


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("fatal: unable to access 'https://me:s3cret@host/a/': 500",
         "fatal: unable to access 'https://***@host/a/': 500"),
        ("https://s3cret@host", "https://***@host"),
        ("HTTP://me:s3cret@host:80/", "HTTP://***@host:80/"),
        ("https://me:s3cret@@host/", "https://***@host/"),
        ("https://me:'s3cret,(x)'@host/", "https://***@host/"),
        ("pkg @ git+https://s3cret@host/a", "pkg @ git+https://***@host/a"),
        ("ssh://git:s3cret@host/a", "ssh://***@host/a"),
        ("a https://s3cret@h/x b\nhttps://s3cret@h", "a https://***@h/x b\nhttps://***@h"),
        ('"https://s3cret@h/","x@y"', '"https://***@h/","x@y"'),
        ("> Authorization: Basic s3cret==", "> Authorization: Basic ***"),
        ("authorization: bearer s3cret", "authorization: bearer ***"),
    ],
)  # fmt: skip
def test_what_stands_before_the_host_is_masked(text: str, clean: str) -> None:
    assert redact(text) == clean
    assert "s3cret" not in clean


@pytest.mark.parametrize(
    "text",
    ["", "git@host:owner/repo", "ssh://git@host/a", "git+ssh://git@host/a", "me@host",
     "https://host/@scope/pkg", "https://host?mail=me@x", "https://host and me@host",
     '{"url":"https://host","mail":"me@x"}', "pkg @ https://host/x.whl", "Authorization"],
)  # fmt: skip
def test_what_is_no_credential_stays(text: str) -> None:
    assert redact(text) == text
