"""Who gets a token and who doesn't, what is asked again, and what is said when it fails.

All of it over real HTTPS, with the names of real hosts (`tests.proxy`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import pytest

from comfy_machine.host.downloads import server_errors
from comfy_machine.host.downloads.server_errors import Denied, Transient
from comfy_machine.host.downloads.web import REDIRECTS, Answer, Tolerance, Web
from comfy_machine.host.system import retries
from comfy_machine.host.system.failure import Failure
from tests.proxy import Internet, Reply, internet, moved

FILE = "https://huggingface.co/me/model/resolve/main/x.bin"
CDN = "https://cdn.example/blob"
TOKEN = "hf_s3cret"
BEARER = f"Bearer {TOKEN}"
QUICK = Tolerance(connect=5, read=2, attempts=3, backoff=0.01, longest=100)


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Internet]:
    with internet(tmp_path, monkeypatch) as net:
        yield net


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that were to be waited; nobody does."""
    slept: list[float] = []
    clock = SimpleNamespace(sleep=slept.append, time=lambda: 1_000_000.0)
    for module in (retries, server_errors):
        monkeypatch.setattr(module, "time", clock)
    return slept


def web(token: str | None = TOKEN, **environ: str) -> Web:
    tokens = {"huggingface.co": "${HF_TOKEN}", "civitai.com": "${CIVITAI_TOKEN}"}
    return Web(tokens, ({"HF_TOKEN": token} if token else {}) | environ, QUICK)


def body(answer: Answer) -> bytes:
    return b"".join(answer.chunks())


def ask(url: str, web_: Web | None = None) -> bytes:
    return (web_ or web()).ask(url, "x.bin", body)


def said(url: str, web_: Web | None = None) -> str:
    """The message of the failure that asking gives; no token is in it, nor in what it shows."""
    with pytest.raises(Failure) as caught:
        ask(url, web_)
    error: BaseException | None = caught.value
    while error:
        assert "s3cret" not in f"{error} {error!r}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("x.bin: ")
    return text.removeprefix("x.bin: ")


# Where a token goes


def test_a_token_goes_to_its_host(net: Internet) -> None:
    net.at(FILE, Reply(body=b"model"))
    assert ask(FILE) == b"model"
    assert net.tokens == [(FILE, BEARER)]
    assert net.connects == ["huggingface.co:443"]


@pytest.mark.parametrize(
    "url",
    [
        "https://cdn.huggingface.co/x",
        "https://huggingface.co.evil.example/x",
        "https://evil-huggingface.co/x",
        "https://huggingface.co:8443/x",
        "http://huggingface.co/x",
        "http://huggingface.co:443/x",
        "https://other.example/x?https://huggingface.co/",
        "https://other.example/huggingface.co",
    ],
)
def test_a_token_goes_nowhere_else(net: Internet, url: str) -> None:
    net.at(url, Reply(body=b"x"))
    ask(url)
    assert net.tokens == [(url, None)]


@pytest.mark.parametrize("url", ["https://huggingface.co:443/x", "https://HuggingFace.co/x"])
def test_a_host_may_be_written_with_its_port_or_in_capitals(net: Internet, url: str) -> None:
    net.at("https://huggingface.co/x", Reply(body=b"x"))
    ask(url)
    assert net.tokens == [("https://huggingface.co/x", BEARER)]


@pytest.mark.parametrize("named", ["host.example:8443", "host.example", "host.example:443"])
def test_a_token_may_be_for_one_port(net: Internet, named: str) -> None:
    urls = [net.at(f"https://host.example{port}/x", Reply()) for port in ("", ":8443")]
    web_ = Web({named: "${T}"}, {"T": "t"}, QUICK)
    for url in urls:
        ask(url, web_)
    sent = [token is not None for _, token in net.tokens]
    assert sent == ([False, True] if named.endswith(":8443") else [True, False])


@pytest.mark.parametrize(
    "to",
    [CDN, "https://huggingface.co.evil.example/x", "https://huggingface.co:8443/x",
     "https://cdn.huggingface.co/x"],
)  # fmt: skip
def test_a_redirect_to_another_host_drops_the_token(net: Internet, to: str) -> None:
    net.at(FILE, moved(to))
    net.at(to, Reply(body=b"model"))
    assert ask(FILE) == b"model"
    assert net.tokens == [(FILE, BEARER), (to, None)]


@pytest.mark.parametrize(
    "to",
    ["/me/renamed", "https://huggingface.co/me/renamed", "//huggingface.co/me/renamed",
     "https://huggingface.co:443/me/renamed"],
)  # fmt: skip
def test_a_redirect_on_the_same_host_keeps_the_token(net: Internet, to: str) -> None:
    net.at(FILE, moved(to))
    net.at("https://huggingface.co/me/renamed", Reply(body=b"model"))
    assert ask(FILE) == b"model"
    assert [token for _, token in net.tokens] == [BEARER, BEARER]


def test_a_redirect_that_comes_back_gets_the_token_of_its_host_again(net: Internet) -> None:
    net.at(FILE, moved(CDN))
    net.at(CDN, moved("https://civitai.com/x"))
    net.at("https://civitai.com/x", Reply(body=b"model"))
    ask(FILE, web(CIVITAI_TOKEN="civ"))
    assert [token for _, token in net.tokens] == [BEARER, None, "Bearer civ"]


def test_credentials_in_a_redirect_are_neither_sent_nor_shown(net: Internet) -> None:
    net.at(FILE, moved("https://me:s3cret@cdn.example/blob"))
    net.at(CDN, Reply(403))
    assert "answers 403" in said(FILE)
    assert net.tokens[1] == (CDN, None)


@pytest.mark.parametrize("to", ["http://huggingface.co/x?sig=s3cret", "ftp://huggingface.co/x"])
def test_a_redirect_out_of_https_is_refused(net: Internet, to: str) -> None:
    net.at(FILE, moved(to))
    assert said(FILE) == (
        f"huggingface.co redirects from https:// to {to.partition('?')[0]}: correct the url"
    )
    assert len(net.asked) == 1


def test_a_redirect_into_https_is_followed_and_has_the_token(net: Internet) -> None:
    net.at("http://huggingface.co/x", moved("https://huggingface.co/x"))
    net.at("https://huggingface.co/x", Reply(body=b"x"))
    ask("http://huggingface.co/x")
    assert [token for _, token in net.tokens] == [None, BEARER]


@pytest.mark.parametrize("token", [f"{TOKEN}\n", f"  {TOKEN}\r\n"])
def test_a_token_may_end_in_a_new_line(net: Internet, token: str) -> None:
    net.at(FILE, Reply())
    ask(FILE, web(token))
    assert net.tokens == [(FILE, BEARER)]


@pytest.mark.parametrize(
    "token",
    ["s3cret\nX: 1", "s3cret x", "s3crets3crét", "s3cret\N{SNOWMAN}", "Bearer s3cret", "s3cret\0"],
)  # fmt: skip
def test_a_token_that_no_header_can_hold_is_named_not_shown(net: Internet, token: str) -> None:
    assert said(FILE, web(token)) == (
        "HF_TOKEN contains a space or a character that tokens don't have: copy the token again"
    )
    assert net.asked == []


def test_a_netrc_serves_its_host_alone_and_only_where_there_is_no_token(
    net: Internet, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text(
        "machine own.example login me password s3cret\n"
        "machine huggingface.co login me password s3cret\n"
    )
    net.at("https://own.example/x", moved(CDN))
    net.at(CDN, moved(FILE))
    net.at(FILE, Reply())
    ask("https://own.example/x")
    assert [token for _, token in net.tokens] == ["Basic bWU6czNjcmV0", None, BEARER]
    net.at("http://own.example/x", Reply())
    ask("http://own.example/x")
    assert net.tokens[-1] == ("http://own.example/x", None)


def test_cookies_are_not_kept(net: Internet) -> None:
    net.at(FILE, moved("/y", **{"Set-Cookie": "a=b; Domain=huggingface.co; Path=/"}))
    net.at("https://huggingface.co/y", Reply(headers={"Set-Cookie": "c=d"}))
    web_ = web()
    ask(FILE, web_)
    ask(FILE, web_)
    assert len(net.asked) == 4
    assert not any("cookie" in asked.headers for asked in net.asked)


def test_a_secret_in_the_query_is_filled_in_and_shown_nowhere(net: Internet) -> None:
    net.at("https://host.example/x?sig=s3cret&a=1", Reply(body=b"x"))
    url = "https://host.example/x?sig=${SIG}&a=1"
    assert ask(url, web(SIG="s3cret\n")) == b"x"
    net.at("https://host.example/x?sig=s3cret&a=1", Reply(503))
    assert said(url, web(SIG="s3cret")).startswith("host.example answers 503")
    net.at("https://host.example/x?sig=s3cret&a=1", Reply(breaks=True))
    assert said(url, web(SIG="s3cret")).startswith(
        "host.example: the connection was reset (3 tries)"
    )
    assert said(url) == (
        "the url needs the variable SIG, which isn't set: set it, or put it into .env.local"
    )


def test_neither_the_web_nor_its_answer_shows_a_token(net: Internet) -> None:
    net.at(FILE, Reply())
    web_ = web()
    with web_.get(FILE, "x") as answer:
        assert TOKEN not in f"{web_!r} {answer!r}"


# What fails at once


NAME = 'name a variable with a token in models.tokens: {host.example: "${NAME}"}'


@pytest.mark.parametrize(
    ("url", "token", "status", "advice"),
    [
        (FILE, TOKEN, 401, "the token in HF_TOKEN isn't accepted"),
        (FILE, TOKEN, 403, "the token in HF_TOKEN isn't accepted, or you haven't accepted the "),
        (FILE, TOKEN, 404, "correct the url"),
        (FILE, None, 401, "set HF_TOKEN to a token for huggingface.co, or correct the url"),
        (FILE, None, 403, "set HF_TOKEN to a token for huggingface.co, or correct the url"),
        (FILE, " \n", 403, "set HF_TOKEN to a token for huggingface.co, or correct the url"),
        (FILE, None, 404, "correct the url; if it is private, put a token in HF_TOKEN"),
        (FILE, None, 410, "correct the url; if it is private, put a token in HF_TOKEN"),
        (FILE, None, 400, "correct the url"),
        ("https://host.example/x", TOKEN, 401, NAME),
        ("https://host.example/x", TOKEN, 403, NAME),
        ("https://host.example/x", TOKEN, 404,
         "correct the url; if it is private, put a token in a variable"),
        ("http://huggingface.co/x", TOKEN, 401, "a token is sent to https:// only"),
        ("http://host.example/x", TOKEN, 403, "a token is sent to https:// only"),
        ("http://host.example/x", TOKEN, 404, "correct the url"),
    ],
)  # fmt: skip
def test_what_asking_again_would_not_change_fails_at_once_and_says_what_would(
    net: Internet, url: str, token: str | None, status: int, advice: str
) -> None:
    net.at(url, Reply(status, reason="Why"))
    host = url.split("/")[2]
    assert said(url, web(token)).startswith(f"{host} answers {status} Why: {advice}")
    assert len(net.asked) == 1


def test_a_url_with_a_variable_of_its_own_is_told_of_that_one(net: Internet) -> None:
    net.at("https://civitai.com/x?token=s3cret", Reply(401))
    line = said("https://civitai.com/x?token=${MINE}", web(MINE="s3cret"))
    assert "the token in MINE isn't accepted" in line


def test_what_a_server_says_can_not_write_on_the_terminal(net: Internet) -> None:
    net.at(FILE, Reply(403, reason="\x1b[2J" + "x" * 999))
    line = said(FILE)
    assert "\x1b" not in line
    assert len(line) < 300
    net.at(FILE, moved("http://\x1b[2Jhost/" + "x" * 999))
    line = said(FILE)
    assert "\x1b" not in line
    assert len(line) < 300


def test_redirects_end(net: Internet) -> None:
    net.at(FILE, moved(FILE))
    assert said(FILE) == "huggingface.co redirects endlessly: correct the url"
    assert len(net.asked) == REDIRECTS


@pytest.mark.parametrize(
    "to", ["https://[bad/x", "https://host:99999/x", "https://\N{DEGREE CELSIUS}/x"]
)
def test_a_redirect_to_nowhere_fails_at_once(net: Internet, to: str) -> None:
    net.at(FILE, moved(to.encode().decode("latin-1")))
    assert "can't be reached: correct the url" in said(FILE)
    assert len(net.asked) == 1


@pytest.mark.parametrize("status", [302, 304])
def test_a_redirect_that_says_not_where_to_fails_at_once(net: Internet, status: int) -> None:
    net.at(FILE, Reply(status))
    assert said(FILE).startswith(f"huggingface.co answers {status}")


def test_a_redirect_s_own_body_may_be_anything(net: Internet) -> None:
    net.at(FILE, replace(moved("/long"), body=b"x" * (3 << 20)))
    net.at("https://huggingface.co/long", moved("/odd", **{"Content-Length": "no number"}))
    net.at("https://huggingface.co/odd", Reply(body=b"model"))
    assert ask(FILE) == b"model"


def test_a_short_redirect_leaves_its_connection_for_the_next(net: Internet) -> None:
    net.at(FILE, replace(moved("/y"), body=b"Found"))
    net.at("https://huggingface.co/y", Reply(body=b"model"))
    assert ask(FILE) == b"model"
    assert net.connects == ["huggingface.co:443"]


def test_a_redirect_may_hold_letters_of_any_script(net: Internet) -> None:
    net.at(FILE, moved("https://cdn.example/modèle".encode().decode("latin-1")))
    net.at("https://cdn.example/mod%C3%A8le", Reply(body=b"model"))
    assert ask(FILE) == b"model"


def test_a_certificate_that_nobody_trusts_is_said_in_one_line(net: Internet) -> None:
    net.strangers.add("cdn.example")
    net.at(FILE, moved(CDN))
    line = said(FILE)
    assert line.startswith("cdn.example's certificate isn't trusted (")
    assert line.endswith("; behind a proxy, name the proxy's in REQUESTS_CA_BUNDLE")
    assert net.connects == ["huggingface.co:443", "cdn.example:443"]


def test_certificates_that_are_not_there_are_said_at_once(
    net: Internet, monkeypatch: pytest.MonkeyPatch, slept: list[float]
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    assert said(FILE) == ("no certificates found at /nowhere.pem: correct REQUESTS_CA_BUNDLE")
    assert slept == []


def test_a_proxy_that_says_no_is_named_at_once(net: Internet) -> None:
    net.refuses = "407 Proxy Authentication Required"
    assert said(FILE) == ("huggingface.co: the proxy answers 407 Proxy Authentication Required: "
                          "see HTTPS_PROXY and NO_PROXY")  # fmt: skip
    assert len(net.connects) == 1
    for transient in ("503 Busy", "429 Slow"):
        net.refuses = transient
        assert f"the proxy answers {transient} (3 tries)" in said(FILE)


# What may pass


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520])
def test_what_may_pass_is_asked_again(net: Internet, status: int) -> None:
    net.at(FILE, Reply(status), Reply(status), Reply(body=b"model"))
    assert ask(FILE) == b"model"
    assert [token for _, token in net.tokens] == [BEARER] * 3


def test_a_reset_connection_is_asked_again(net: Internet) -> None:
    net.at(FILE, Reply(breaks=True), Reply(breaks=True), Reply(body=b"model"))
    assert ask(FILE) == b"model"


def test_a_body_that_ends_too_early_is_asked_again(net: Internet) -> None:
    net.at(FILE, Reply(body=b"model", short=2), Reply(body=b"model"))
    assert ask(FILE) == b"model"


def test_tries_end(net: Internet) -> None:
    net.at(FILE, Reply(503, reason="Busy"))
    assert said(FILE) == "huggingface.co answers 503 Busy (3 tries): run doit again to resume"
    assert len(net.asked) == 3


@pytest.mark.parametrize(
    ("broken", "words"),
    [(Reply(breaks=True), "the connection was reset"),
     (Reply(body=b"model", short=2), "the answer ended too early")],
)  # fmt: skip
def test_an_address_s_own_words_are_not_taken_for_what_happened(
    net: Internet, broken: Reply, words: str
) -> None:
    url = net.at("https://host.example/a/resolve/main/reset-refused-proxy-timed out", broken)
    net.at(url.replace(" ", "%20"), broken)
    assert f"{words} (3 tries)" in said(url)


def test_a_refused_connection_to_the_proxy_is_said(
    net: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    assert said(FILE).startswith("huggingface.co: the proxy can't be reached (3 tries)")


def test_a_refused_connection_is_said(net: Internet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    line = said("https://127.0.0.1:1/a/resolve/main/x")
    assert line.startswith("127.0.0.1:1: the connection was refused (3 tries)")


@pytest.mark.parametrize(
    ("after", "wait"),
    [("7", 7), (" 7 ", 7), (formatdate(1_000_030, usegmt=True), 30), ("0", 0.01),
     (formatdate(999_000, usegmt=True), 0.01), ("soon", 0.01), ("\xb2", 0.01), ("-5", 0.01)],
)  # fmt: skip
def test_a_server_is_given_the_time_that_it_asks_for(
    net: Internet, slept: list[float], after: str, wait: float
) -> None:
    net.at(FILE, Reply(429, headers={"Retry-After": after}), Reply(body=b"model"))
    assert ask(FILE) == b"model"
    assert slept == [wait]


def test_each_try_waits_twice_as_long_as_the_one_before(net: Internet, slept: list[float]) -> None:
    net.at(FILE, Reply(503))
    said(FILE)
    assert slept == [0.01, 0.02]


@pytest.mark.parametrize("after", ["101", formatdate(1_000_101, usegmt=True)])
def test_a_server_that_asks_for_too_long_is_not_waited_for(
    net: Internet, slept: list[float], after: str
) -> None:
    net.at(FILE, Reply(429, reason="Slow", headers={"Retry-After": after}))
    assert said(FILE) == (
        "huggingface.co answers 429 Slow; it asks to wait 101 s: run doit again to resume"
    )
    assert (len(net.asked), slept) == (1, [])


def test_what_is_denied_and_what_may_pass_are_told_apart(net: Internet) -> None:
    for status, kind in ((403, Denied), (503, Transient)):
        net.at(FILE, Reply(status))
        with pytest.raises(kind), web().get(FILE, "x.bin"):
            pass
