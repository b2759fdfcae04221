"""HTTP to model servers: tokens for exact hosts, redirects, temporary and permanent errors."""

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
from ..system.program_files import PROGRAM
from ..system.retries import Retries
from . import server_errors
from .credentials import UnusableToken, authorization
from .server_errors import Denied, Transient, gist

if TYPE_CHECKING:
    import urllib3

T = TypeVar("T")

HOST_CONNECTIONS = 8
"""Simultaneous requests to one host."""
REDIRECTS = 10
ACCEPTED = frozenset({416})
"""The statuses besides 2xx that callers look at themselves."""
TRANSIENT = frozenset({408, 425, 429, *range(500, 600)})
REDIRECTING = frozenset({301, 302, 303, 307, 308})
HEADERS = {"User-Agent": "comfy-machine", "Accept": "*/*", "Accept-Encoding": "identity"}
CHUNK = 1 << 20


@dataclass(frozen=True)
class Tolerance(Retries):
    """How slow a server may be, and how often a request is retried."""

    connect: float = 10.0
    """Seconds to connect."""
    read: float = 30.0
    """Seconds without a byte until it counts as stalled."""
    slowest: float = 1024.0
    """Bytes per second below which it also counts as stalled."""
    advice: str = f"run {PROGRAM} again to resume"

    def pause_or_fail(self, failed: int, transient: Transient, label: str) -> None:
        """Sleep before the next try. Raises Failure if there is none after `failed` tries."""
        if self.pause(failed, transient.wait):
            return
        wait = self.wait(failed, transient.wait)
        when = f"; it asks to wait {wait:.0f} s" if wait > self.longest else ""
        tries = f" ({failed} tries)" if failed > 1 else ""
        raise Failure(f"{label}: {transient}{tries}{when}: {self.advice}") from transient


@dataclass
class Answer:
    """A response whose body hasn't been read, and headers from the redirects to it."""

    response: urllib3.BaseHTTPResponse
    url: str
    """The URL of the last redirect; may contain secrets."""
    headers: dict[str, str]
    """Headers of the requested host, in lower case; it says more than the host it redirects to."""
    tolerance: Tolerance

    @property
    def status(self) -> int:
        return self.response.status

    def header(self, name: str) -> str | None:
        value: str | None = self.response.headers.get(name)
        return value

    def chunks(self) -> Iterator[bytes]:
        """The body in chunks of at most 1 MiB, as they arrive.

        Raises Transient, also when less than `slowest` arrives within `read` seconds.
        """
        import urllib3

        tolerance = self.tolerance
        since, received = time.monotonic(), 0
        try:
            while chunk := self.response.read1(CHUNK, decode_content=False):
                yield chunk
                received += len(chunk)
                if time.monotonic() - since > tolerance.read:
                    if received < tolerance.slowest * tolerance.read:
                        raise Transient("hardly any data came")
                    since, received = time.monotonic(), 0
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Transient(gist(error)) from None

    def close(self) -> None:
        self.response.close()


@dataclass
class Web:
    """Sessions, tokens and limits for the servers of one run."""

    tokens: Mapping[str, str] = field(default_factory=dict)
    """Exact host → `${NAME}`."""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    tolerance: Tolerance = field(default_factory=Tolerance)

    def __post_init__(self) -> None:
        from requests.adapters import HTTPAdapter
        from requests.utils import DEFAULT_CA_BUNDLE_PATH

        named = [os.environ.get(name) for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")]
        self._bundle = (
            next(filter(None, named), None) or process.certificates() or DEFAULT_CA_BUNDLE_PATH
        )
        kind = "ca_cert_dir" if Path(self._bundle).is_dir() else "ca_certs"
        self._tls_options: dict[str, Any] = {"cert_reqs": "CERT_REQUIRED", kind: self._bundle}
        # The adapter handles proxies; a session would cost half a millisecond per small file.
        self._adapter = HTTPAdapter(pool_maxsize=8 * HOST_CONNECTIONS)
        self._adapter.init_poolmanager(10, 8 * HOST_CONNECTIONS, **self._tls_options)
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._limits: dict[str, threading.Semaphore] = {}
        self._limits_lock = threading.Lock()

    def token(self, url: str) -> tuple[str | None, str | None]:
        """The variable with the token for this URL's host, and its value if it is set."""
        host = _exact(url)
        named = self.tokens.get(host) or self.tokens.get(f"{host}:443")
        if named is None:
            return None, None
        name = named[2:-1]
        return name, (self.environ.get(name) or "").strip() or None

    @contextlib.contextmanager
    def get(
        self,
        url: str,
        label: str,
        headers: Mapping[str, str] | None = None,
        *,
        body: bytes | None = None,
        accepted: frozenset[int] = ACCEPTED,
    ) -> Iterator[Answer]:
        """Request `url` (`${NAME}` in it is expanded here) and follow redirects; with `body` it is
        a POST.

        Any answer except 2xx and those `accepted` raises Transient or Denied; `label` begins the
        message.
        """
        with self._limit(urlsplit(url).netloc):
            answer = self._follow(self._expanded(url, label), headers or {}, label, body)
            try:
                if not (200 <= answer.status < 300 or answer.status in accepted):
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
        *,
        body: bytes | None = None,
        accepted: frozenset[int] = ACCEPTED,
    ) -> T:
        """The result of `read` for the answer; transient errors are retried. Raises Failure."""
        attempt = 0
        while True:
            try:
                with self.get(url, label, headers, body=body, accepted=accepted) as answer:
                    return read(answer)
            except Transient as transient:
                attempt += 1
                self.tolerance.pause_or_fail(attempt, transient, label)

    def _expanded(self, url: str, label: str) -> str:
        if "${" not in url:
            return url
        # A trailing newline isn't part of a token, and `#` would end the path.
        given = {name: value.strip().replace("#", "%23") for name, value in self.environ.items()}
        try:
            return expand(url, {name: value for name, value in given.items() if value})
        except KeyError as error:
            raise Denied(f"{label}: the url needs the variable {error.args[0]}, which isn't "
                         "set: set it, or put it into .env.local") from None  # fmt: skip

    @contextlib.contextmanager
    def _limit(self, host: str) -> Iterator[None]:
        with self._limits_lock:
            limit = self._limits.setdefault(host, threading.Semaphore(HOST_CONNECTIONS))
        with limit:
            yield

    def _follow(
        self, url: str, headers: Mapping[str, str], label: str, body: bytes | None
    ) -> Answer:
        own_headers: dict[str, str] = {}
        first_host = _exact(url)
        for _ in range(REDIRECTS):
            response, following = self._send(url, headers, label, body)
            if _exact(url) == first_host:
                own_headers |= {name.lower(): value for name, value in response.headers.items()}
            answer = Answer(response, url, own_headers, self.tolerance)
            if following is None:
                return answer
            _drop(answer)
            if urlsplit(url).scheme == "https" != urlsplit(following).scheme:
                raise Denied(f"{label}: {_host(url)} redirects from https:// to "
                             f"{shown(following.split('?')[0])}: correct the url")  # fmt: skip
            url = following
        raise Denied(f"{label}: {first_host} redirects endlessly: correct the url")

    def _send(
        self, url: str, headers: Mapping[str, str], label: str, body: bytes | None
    ) -> tuple[urllib3.BaseHTTPResponse, str | None]:
        """One request; its answer, and where that redirects to. Raises Transient, Denied.

        The libraries' messages may contain the token, so none is passed on.
        """
        import urllib3

        host = _host(url)
        try:
            response = self._pools_for(url).request(
                "GET" if body is None else "POST",
                url,
                body=body,
                headers={**HEADERS, **headers, **authorization(url, self.token)},
                timeout=urllib3.Timeout(connect=self.tolerance.connect, read=self.tolerance.read),
                redirect=False,
                retries=False,
                preload_content=False,
            )
            target = response.headers.get("Location") if response.status in REDIRECTING else None
            following = urljoin(url, _utf8(target)) if target else None
            urlsplit(following or "")
        except UnusableToken as unusable:
            raise Denied(f"{label}: {unusable.args[0]} contains a space or a character that tokens "
                         "don't have: copy the token again") from None  # fmt: skip
        except ValueError as error:  # LocationParseError, UnicodeError …
            raise Denied(f"{label}: {host} can't be reached: correct the url or its token "
                         f"({type(error).__name__})") from None  # fmt: skip
        except (urllib3.exceptions.HTTPError, OSError) as error:
            if not Path(self._bundle).exists():
                raise Denied(f"{label}: no certificates found at {self._bundle}: "
                             "correct REQUESTS_CA_BUNDLE") from None  # fmt: skip
            if why := server_errors.certificate_problem(error):
                raise Denied(f"{label}: {host}'s certificate isn't trusted ({why}); behind a "
                             "proxy, name the proxy's in REQUESTS_CA_BUNDLE") from None  # fmt: skip
            if int((server_errors.refused_by_proxy(error) or "503")[:3]) not in TRANSIENT:
                raise Denied(f"{label}: {host}: {gist(error)}: see HTTPS_PROXY and NO_PROXY") \
                    from None  # fmt: skip
            raise Transient(f"{host}: {gist(error)}") from None
        return response, following

    def _pools_for(self, url: str) -> urllib3.PoolManager:
        """The connection pools for a host, through its proxy in the environment, if any."""
        host = _exact(url)
        if host not in self._pools:
            from requests.utils import get_environ_proxies, select_proxy

            pools = self._adapter.poolmanager
            if proxy := select_proxy(url, get_environ_proxies(url)):
                proxy = proxy if "://" in proxy else f"http://{proxy}"
                pools = self._adapter.proxy_manager_for(proxy, **self._tls_options)
            self._pools[host] = pools
        return self._pools[host]

    def _refuse(self, answer: Answer, url: str, label: str) -> None:
        """Raise Transient or Denied for a status that isn't accepted."""
        status = answer.status
        host = _host(answer.url)
        what = f"{host} answers {status} {shown(answer.response.reason or '')}".strip()
        if status in TRANSIENT:
            raise Transient(what, server_errors.retry_after(answer.header("Retry-After")))
        raise Denied(f"{label}: {what}: {self._advice(status, url)}")

    def _advice(self, status: int, url: str) -> str:
        host = _host(url)
        name, value = self.token(url)
        if written := re.search(VARIABLE, url):
            name = value = written[0][2:-1]
        if status in (404, 410):
            advice = "correct the url"
            if value or urlsplit(url).scheme != "https":
                return advice
            where = f"in {name}" if name else "in a variable that models.tokens names"
            return f"{advice}; if it is private, put a token {where}"
        if status not in (401, 403):
            return "correct the url"
        if urlsplit(url).scheme != "https":
            return "a token is sent to https:// only"
        if value:
            return (
                f"the token in {name} isn't accepted, or you haven't accepted the terms on its page"
            )
        if name:
            return f"set {name} to a token for {host}, or correct the url"
        return f'name a variable with a token in models.tokens: {{{host}: "${{NAME}}"}}'


def _drop(answer: Answer) -> None:
    """Read and discard a short body, so that the connection can be reused."""
    if re.fullmatch(r"[0-9]{1,6}", answer.header("Content-Length") or ""):
        for _ in answer.chunks():
            pass
    answer.close()


def _utf8(location: str) -> str:
    """Servers send UTF-8; the library decodes headers as Latin-1."""
    with contextlib.suppress(UnicodeError):
        return location.encode("latin1").decode()
    return location


def _host(url: str) -> str:
    """The host, to be shown: without credentials, which a redirect may contain."""
    return shown(urlsplit(url).netloc.rpartition("@")[2])


def _exact(url: str) -> str:
    """The host, without https' default port."""
    return urlsplit(url).netloc.lower().removesuffix(":443")
