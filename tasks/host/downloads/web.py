"""HTTP to the servers of models: tokens for exact hosts, redirects, what may pass and what not."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin, urlsplit

from ...spec import expand
from ...spec.problems import shown
from ...spec.variable_references import VARIABLE
from ..system import process
from ..system.failure import Failure
from ..system.retries import Retries
from . import server_errors
from .credentials import UnusableToken, authorization
from .server_errors import Denied, Passing, gist

if TYPE_CHECKING:
    import urllib3

T = TypeVar("T")

HOST_CONNECTIONS = 8
"""Requests at once to one host."""
REDIRECTS = 10
PASSING = frozenset({408, 425, 429, *range(500, 600)})
REDIRECTING = frozenset({301, 302, 303, 307, 308})
HEADERS = {"User-Agent": "comfy-machine", "Accept": "*/*", "Accept-Encoding": "identity"}
CHUNK = 1 << 20


@dataclass(frozen=True)
class Patience(Retries):
    """How long a server is borne with."""

    connect: float = 10.0
    """Seconds until a connection stands."""
    read: float = 30.0
    """Seconds without a byte until it counts as stalled."""
    slowest: float = 1024.0
    """Bytes per second below which it counts as stalled too."""

    def bear(self, failed: int, passing: Passing, label: str) -> None:
        """Sleep before another try after so many failed. Raises Failure when there is none."""
        if self.pause(failed, passing.wait):
            return
        wait = self.wait(failed, passing.wait)
        when = f"; it asks to wait {wait:.0f} s" if wait > self.longest else ""
        tries = f" ({failed} tries)" if failed > 1 else ""
        raise Failure(f"{label}: {passing}{tries}{when}: run doit again to go on") from passing


@dataclass
class Answer:
    """A response whose body is still to come, and what redirects on the way to it said."""

    response: urllib3.BaseHTTPResponse
    url: str
    """Of the last redirect; may hold secrets."""
    headers: dict[str, str]
    """Of the host that was asked, lower case; it knows more than the store it sends us to."""
    patience: Patience

    @property
    def status(self) -> int:
        return self.response.status

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
            while chunk := self.response.read1(CHUNK, decode_content=False):
                yield chunk
                came += len(chunk)
                if time.monotonic() - since > patience.read:
                    if came < patience.slowest * patience.read:
                        raise Passing("hardly anything came")
                    since, came = time.monotonic(), 0
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Passing(gist(error)) from None

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
        from requests.adapters import HTTPAdapter
        from requests.utils import DEFAULT_CA_BUNDLE_PATH

        named = [os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")]
        self._bundle = (
            next(filter(None, named), None) or process.certificates() or DEFAULT_CA_BUNDLE_PATH
        )
        kind = "ca_cert_dir" if Path(self._bundle).is_dir() else "ca_certs"
        self._pools_have: dict[str, Any] = {"cert_reqs": "CERT_REQUIRED", kind: self._bundle}
        # requests knows proxies; its session costs half a millisecond for each small file.
        self._adapter = HTTPAdapter(pool_maxsize=8 * HOST_CONNECTIONS)
        self._adapter.init_poolmanager(10, 8 * HOST_CONNECTIONS, **self._pools_have)
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._limits: dict[str, threading.Semaphore] = {}
        self._limits_lock = threading.Lock()

    def token(self, url: str) -> tuple[str | None, str | None]:
        """The variable that holds the token for this URL's host, and its value, if it is set."""
        host = _exact(url)
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
        with self._limit(urlsplit(url).netloc):
            answer = self._follow(self._filled(url, label), headers or {}, label)
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
                self.patience.bear(attempt, passing, label)

    def _filled(self, url: str, label: str) -> str:
        if "${" not in url:
            return url
        # What ends a line or an address is none of a token.
        given = {name: value.strip().replace("#", "%23") for name, value in self.environ.items()}
        try:
            return expand(url, {name: value for name, value in given.items() if value})
        except KeyError as error:
            raise Denied(f"{label}: the variable {error.args[0]} isn't set, its url needs it: "
                         "set it, or put it into .env.local") from None  # fmt: skip

    @contextlib.contextmanager
    def _limit(self, host: str) -> Iterator[None]:
        with self._limits_lock:
            limit = self._limits.setdefault(host, threading.Semaphore(HOST_CONNECTIONS))
        with limit:
            yield

    def _follow(self, url: str, headers: Mapping[str, str], label: str) -> Answer:
        told: dict[str, str] = {}
        asked = _exact(url)
        for _ in range(REDIRECTS):
            response, following = self._send(url, headers, label)
            if _exact(url) == asked:
                told |= {name.lower(): value for name, value in response.headers.items()}
            answer = Answer(response, url, told, self.patience)
            if following is None:
                return answer
            _drop(answer)
            if urlsplit(url).scheme == "https" != urlsplit(following).scheme:
                raise Denied(f"{label}: {_host(url)} sends us from https:// to "
                             f"{shown(following.split('?')[0])}: correct the url")  # fmt: skip
            url = following
        raise Denied(f"{label}: {asked} redirects for ever: correct the url")

    def _send(
        self, url: str, headers: Mapping[str, str], label: str
    ) -> tuple[urllib3.BaseHTTPResponse, str | None]:
        """One request; its answer, and where that sends us. Raises Passing, Denied.

        The library's own texts may hold the token: none of them is passed on.
        """
        import urllib3

        host = _host(url)
        try:
            response = self._pools_for(url).request(
                "GET",
                url,
                headers={**HEADERS, **headers, **authorization(url, self.token)},
                timeout=urllib3.Timeout(connect=self.patience.connect, read=self.patience.read),
                redirect=False,
                retries=False,
                preload_content=False,
            )
            target = response.headers.get("Location") if response.status in REDIRECTING else None
            following = urljoin(url, _utf8(target)) if target else None
            urlsplit(following or "")
        except UnusableToken as unusable:
            raise Denied(f"{label}: {unusable.args[0]} holds a space or a character that no token "
                         "has: copy the token anew") from None  # fmt: skip
        except ValueError as error:  # LocationParseError, UnicodeError …
            raise Denied(f"{label}: {host} can't be asked: correct the url or its token "
                         f"({type(error).__name__})") from None  # fmt: skip
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if not Path(self._bundle).exists():
                raise Denied(f"{label}: there are no certificates at {self._bundle}: "
                             "correct REQUESTS_CA_BUNDLE") from None  # fmt: skip
            if why := server_errors.distrust(error):
                raise Denied(f"{label}: {host}'s certificate isn't trusted ({why}); behind a proxy "
                             "name its own in REQUESTS_CA_BUNDLE") from None  # fmt: skip
            if int((server_errors.refused_by_proxy(error) or "503")[:3]) not in PASSING:
                raise Denied(f"{label}: {host}: {gist(error)}: see HTTPS_PROXY and NO_PROXY") \
                    from None  # fmt: skip
            raise Passing(f"{host}: {gist(error)}") from None
        return response, following

    def _pools_for(self, url: str) -> urllib3.PoolManager:
        """Connections to a host, through the proxy that the environment names for it."""
        host = _exact(url)
        if host not in self._pools:
            from requests.utils import get_environ_proxies, select_proxy

            pools = self._adapter.poolmanager
            if proxy := select_proxy(url, get_environ_proxies(url)):
                proxy = proxy if "://" in proxy else f"http://{proxy}"
                pools = self._adapter.proxy_manager_for(proxy, **self._pools_have)
            self._pools[host] = pools
        return self._pools[host]

    def _refuse(self, answer: Answer, url: str, label: str) -> None:
        """Raise what a status means that is neither 2xx nor 416."""
        status = answer.status
        if 200 <= status < 300 or status == 416:
            return
        host = _host(answer.url)
        what = f"{host} answers {status} {shown(answer.response.reason or '')}".strip()
        if status in PASSING:
            raise Passing(what, server_errors.retry_after(answer.header("Retry-After")))
        raise Denied(f"{label}: {what}: {self._advice(status, url)}")

    def _advice(self, status: int, url: str) -> str:
        host = _host(url)
        name, value = self.token(url)
        if written := re.search(VARIABLE, url):
            name = value = written[0][2:-1]
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
            return f"set {name} to a token for {host}, or correct the url"
        return f'name a variable with a token in models.tokens: {{{host}: "${{NAME}}"}}'


def _drop(answer: Answer) -> None:
    """Read a short body, which is of no use, so that its connection can serve again."""
    if re.fullmatch(r"[0-9]{1,6}", answer.header("Content-Length") or ""):
        for _ in answer.chunks():
            pass
    answer.close()


def _utf8(location: str) -> str:
    """Servers write UTF-8, the library reads what HTTP says: Latin-1."""
    with contextlib.suppress(UnicodeError):
        return location.encode("latin1").decode()
    return location


def _host(url: str) -> str:
    """To be shown: without the credentials that a redirect may hold."""
    return shown(urlsplit(url).netloc.rpartition("@")[2])


def _exact(url: str) -> str:
    """Its host, without the port that https has anyway."""
    return urlsplit(url).netloc.lower().removesuffix(":443")
