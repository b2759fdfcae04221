"""HTTP to the servers of models: tokens for exact hosts, redirects, what may pass and what not."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin, urlsplit

from tasks.host import process
from tasks.host.patience import Denied, Passing, Patience, gist, retry_after
from tasks.spec import expand

if TYPE_CHECKING:
    import requests

T = TypeVar("T")

HOST_CONNECTIONS = 8
"""Requests at once to one host."""
REDIRECTS = 10
PASSING = frozenset({408, 425, 429, *range(500, 600)})
CHUNK = 1 << 20


@dataclass
class Answer:
    """A response whose body is still to come, and what redirects on the way to it said."""

    response: requests.Response
    headers: dict[str, str]
    """Of the host that was asked, lower case; it knows more than the store it sends us to."""
    patience: Patience

    @property
    def status(self) -> int:
        return self.response.status_code

    def header(self, name: str) -> str | None:
        value: str | None = self.response.headers.get(name)
        return value

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes, in pieces of at most 1 MiB.

        Raises Passing, also when less than `slowest` comes in the seconds of `read`.
        """
        import urllib3

        patience = self.patience
        since, came = time.monotonic(), 0
        try:
            while chunk := self.response.raw.read1(CHUNK, decode_content=False):
                yield chunk
                came += len(chunk)
                if time.monotonic() - since > patience.read:
                    if came < patience.slowest * patience.read:
                        raise Passing("hardly anything came")
                    since, came = time.monotonic(), 0
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Passing(gist(error)) from error

    def close(self) -> None:
        self.response.close()


@dataclass
class Web:
    """Sessions, tokens and limits for the servers of one run."""

    tokens: Mapping[str, str] = field(default_factory=dict)
    """Exact host → `${NAME}`."""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        self._session = requests.Session()
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers.update({"User-Agent": "comfy-machine", "Accept-Encoding": "identity"})
        self._session.auth = _Tokens(self)
        named = [os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")]
        self._session.verify = next(filter(None, named), None) or process.certificates() or True
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=8 * HOST_CONNECTIONS))
        self._limits: dict[str, threading.Semaphore] = {}
        self._limits_lock = threading.Lock()

    def token(self, url: str) -> tuple[str | None, str | None]:
        """The variable that holds the token for this URL's host, and its value, if it is set."""
        parts = urlsplit(url)
        host = parts.netloc.lower().removesuffix(":443")
        named = self.tokens.get(host) or self.tokens.get(f"{host}:443")
        if named is None:
            return None, None
        name = named[2:-1]
        return name, (self.environ.get(name) or "").strip() or None

    @contextlib.contextmanager
    def get(
        self, url: str, label: str, headers: Mapping[str, str] | None = None
    ) -> Iterator[Answer]:
        """Ask for `url` (`${NAME}` in it is filled in here) and follow its redirects.

        Any answer but 2xx and 416 raises Passing or Denied; `label` begins its message.
        """
        import requests
        import urllib3

        with self._limit(urlsplit(url).netloc):
            try:
                answer = self._follow(self._filled(url, label), headers or {})
            except requests.exceptions.SSLError as error:
                raise Denied(f"{label}: {_host(url)}'s certificate isn't trusted; behind a proxy "
                             "name its own in REQUESTS_CA_BUNDLE") from error  # fmt: skip
            except (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader,
                    requests.exceptions.InvalidSchema, UnicodeError) as error:  # fmt: skip
                # Its text may hold the token.
                raise Denied(f"{label}: {_host(url)} can't be asked: correct the url or its token "
                             f"({type(error).__name__})") from None  # fmt: skip
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                raise Passing(f"{_host(url)}: {gist(error)}") from error
            try:
                self._refuse(answer, url, label)
                yield answer
            finally:
                answer.close()

    def ask(
        self,
        url: str,
        label: str,
        read: Callable[[Answer], T],
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """What `read` makes of the answer; what may pass is asked again. Raises Failure."""
        attempt = 0
        while True:
            try:
                with self.get(url, label, headers) as answer:
                    return read(answer)
            except Passing as passing:
                attempt += 1
                self.patience.pause(attempt, passing, label)

    def _filled(self, url: str, label: str) -> str:
        try:
            return expand(url, {name: value for name, value in self.environ.items() if value})
        except KeyError as error:
            raise Denied(f"{label}: the variable {error.args[0]} isn't set, its url needs it: "
                         "set it, or put it into .env.local") from None  # fmt: skip

    @contextlib.contextmanager
    def _limit(self, host: str) -> Iterator[None]:
        with self._limits_lock:
            limit = self._limits.setdefault(host, threading.Semaphore(HOST_CONNECTIONS))
        with limit:
            yield

    def _follow(self, url: str, headers: Mapping[str, str]) -> Answer:
        timeout = (self.patience.connect, self.patience.read)
        told: dict[str, str] = {}
        asked = urlsplit(url).netloc
        for _ in range(REDIRECTS):
            response = self._session.get(
                url, headers=dict(headers), timeout=timeout, stream=True, allow_redirects=False
            )
            if urlsplit(url).netloc == asked:
                told |= {name.lower(): value for name, value in response.headers.items()}
            target = response.headers.get("Location")
            if not (response.is_redirect and target):
                return Answer(response, told, self.patience)
            # Its body is of no use, its connection is.
            response.close() if int(response.headers.get("Content-Length") or CHUNK) >= CHUNK \
                else response.content  # fmt: skip
            following = urljoin(url, target)
            if urlsplit(url).scheme == "https" and urlsplit(following).scheme != "https":
                raise Denied(f"{_host(url)} sends us from https:// to {following.split('?')[0]}")
            url = following
        raise Denied(f"{_host(url)} redirects for ever")

    def _refuse(self, answer: Answer, url: str, label: str) -> None:
        """Raise what a status means that is neither 2xx nor 416."""
        status = answer.status
        if 200 <= status < 300 or status == 416:
            return
        host = _host(answer.response.url)
        what = f"{host} answers {status} {answer.response.reason or ''}".strip()
        if status in PASSING:
            raise Passing(what, retry_after(answer.header("Retry-After")))
        raise Denied(f"{label}: {what}: {self._advice(status, url)}")

    def _advice(self, status: int, url: str) -> str:
        host = _host(url)
        name, value = self.token(url)
        if status in (404, 410):
            wrong = "correct the url"
            if urlsplit(url).scheme != "https":
                return wrong
            holds = f"{name} would hold" if name else "models.tokens would name"
            return wrong if value else f"{wrong}; if it is private, {holds} the token"
        if status not in (401, 403):
            return "correct the url"
        if urlsplit(url).scheme != "https":
            return "a token is sent to https:// only"
        if value:
            return f"the token in {name} is not accepted for it, or its terms on the page are not"
        if name:
            return f"set {name} to a token for {host}"
        return f'name a variable with a token in models.tokens: {{{host}: "${{NAME}}"}}'


class _Tokens:
    """requests' hook for credentials, called for every single request, redirected or not."""

    def __init__(self, web: Web) -> None:
        self._web = web

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        from requests.auth import HTTPBasicAuth
        from requests.utils import get_netrc_auth

        url = request.url or ""
        if urlsplit(url).scheme != "https":
            return request
        _, token = self._web.token(url)
        if token:
            request.headers["Authorization"] = f"Bearer {token}"
        elif known := get_netrc_auth(url):
            HTTPBasicAuth(*known)(request)
        return request


def _host(url: str) -> str:
    return urlsplit(url).netloc
