"""Secrets that logs and errors repeat: none of them is in an answer, and the answer stays whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from comfy_machine.dotenv import quote
from comfy_machine.host.pm2 import log_evidence
from comfy_machine.host.system import files
from comfy_machine.services.health.model import answers as a
from comfy_machine.services.health.sampling.masking import Masks
from comfy_machine.spec.layout import Layout
from tests.services import samples

PEM = "-----BEGIN KEY-----\nMIIEowIBAAKCAQEA75\nqLwQ8yD2nEjK4x\n-----END KEY-----\n"
SECRETS = {
    "plain": "hf_abcdefghij",
    "quotes": "it's \"quoted\" 'twice'",
    "backslashes": r"C:\new\table \u0041 \\",
    "unicode": "pässwörd-密码-🔑",
    "both": 'pä"ss\\wörd',
    "control": "tab\tbell\x07del\x7f\x1b[31m",
    "separators": "a\u2028b\u0085c\x1cd",
    "variable": "a${HOME}b${c",
    "edges": "  spaces around  ",
    "newlines": PEM,
    "returns": "first line\r\nsecond line",
    "end": "first line\nand C:\\",
    "hash": "#not a comment",
    "equals": "a=b=c=d",
}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "ws")


def write(layout: Layout, name: str = "fetch-gpu0-abc", **secrets: str) -> None:
    files.write_text(layout.secrets / f"{name}.json", json.dumps(secrets), mode=0o600)


def told(masks: Masks, *log: str, **failed: str) -> a.InstanceHealth:
    """An instance's answer with these words in it, as it is sent."""
    functional = a.Functional(ok=False, failed_nodes=failed)
    sick = samples.instance(
        0, "unhealthy", log=list(log), reason=" ".join(log), layers={"functional": functional}
    )
    return a.InstanceHealth.model_validate_json(masks.json(sick.model_dump_json().encode()))


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize(
    "place", ["environment file", ".env of a node", "own token", "the gateway's"]
)
def test_a_secret_of_any_kind_is_masked_wherever_it_is_known_from(
    layout: Layout, kind: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = SECRETS[kind]
    if place == "environment file":
        write(layout, TOKEN=secret)
    elif place == "own token":
        monkeypatch.setenv("HEALTH_TOKEN", secret)
    elif place == "the gateway's":
        monkeypatch.setenv("JOBS_TOKEN", secret)
    else:
        files.write_text(layout.dotenvs / "node.env", f"A=1\nTOKEN={quote(secret)}\nB=2\n")
    masks = Masks(layout)
    sent = told(masks, f"I use {secret}!", node=f"E: {secret}", **{secret: "as a key"})
    assert sent.log == ["I use ***!"]
    assert sent.reason == "I use ***!"
    assert sent.layers.functional.failed_nodes == {"node": "E: ***", "***": "as a key"}


def test_each_line_of_a_secret_is_one(layout: Layout) -> None:
    write(layout, KEY=PEM)
    sent = told(Masks(layout), *PEM.splitlines(), "nothing of it")
    assert sent.log == ["***"] * 4 + ["nothing of it"]


def test_a_log_shows_none_of_it_as_it_leaves_out_and_cuts(layout: Layout, tmp_path: Path) -> None:
    secret = "one\x07two\x1c three"
    write(layout, A=secret, B="q" * 40)
    log = tmp_path / "comfyui-gpu0.log"
    log.write_text(f"{secret}\n{'x' * (log_evidence.LONGEST - 15)} {'q' * 40}\n", newline="")
    shown = told(Masks(layout), *log_evidence.last_lines(log, 2)).log
    assert shown == ["***", f"{'x' * (log_evidence.LONGEST - 15)} ***"]


def test_of_two_secrets_the_longer_one_is_masked_whole(layout: Layout) -> None:
    write(layout, A="secret", B="secret-and-more")
    assert told(Masks(layout), "secret-and-more").log == ["***"]


def test_what_is_short_is_no_secret(layout: Layout) -> None:
    write(layout, A="true", B="12345", C="", D="123456")
    assert told(Masks(layout), "true 12345 123456").log == ["true 12345 ***"]


@pytest.mark.parametrize("word", ["status", "reason", "functional", "unhealthy", "failed_nodes"])
def test_a_secret_that_is_a_word_of_ours_leaves_the_answer_whole(layout: Layout, word: str) -> None:
    write(layout, A=word)
    sent = told(Masks(layout), f"the {word} is out")
    assert (sent.status, sent.log) == ("unhealthy", ["the *** is out"])


def test_what_holds_no_secret_is_sent_as_it_is(layout: Layout) -> None:
    write(layout, A="very-secret-indeed")
    body = samples.sick(0).model_dump_json().encode()
    assert Masks(layout).json(body) is body


def test_a_secret_that_comes_or_changes_is_known_at_once(layout: Layout) -> None:
    masks = Masks(layout)
    for secret in ("the-first-one", "the-second-one", "the-third-one"):
        write(layout, A=secret)
        masks.refresh()
        assert told(masks, secret).log == ["***"]
    files.write_text(layout.dotenvs / "node.env", "TOKEN=the-fourth-one\n")
    masks.refresh()
    assert told(masks, "the-third-one the-fourth-one").log == ["*** ***"]
    files.remove(layout.secrets)
    masks.refresh()
    assert told(masks, "the-third-one").log == ["the-third-one"]


def test_files_of_no_use_and_bytes_that_are_no_text_stop_nothing(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(layout, "odd", A="lone \ud800 half", B="found all the same")
    (layout.secrets / "half.json").write_text('{"A": "cut o')
    (layout.secrets / "list.json").write_text("[1, 2]")
    (layout.secrets / "gone.json").symlink_to("nowhere")
    files.write_text(layout.dotenvs / "node.env", "no line\n=\nA='\nB=\"\n")
    (layout.dotenvs / "gone.env").symlink_to("nowhere")
    monkeypatch.setenv("HEALTH_TOKEN", b"t\xf6ken-in-latin-1".decode("utf-8", "surrogateescape"))
    assert told(Masks(layout), "found all the same").log == ["***"]
