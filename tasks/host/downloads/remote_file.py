"""What a server says about a file before its bytes: version, length, and more on some hosts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .partial_file import Version
from .web import Answer, Web

CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_HUGGING_FACE = re.compile(
    r"(https?://[^/]+(?:/(?:datasets|spaces))?/[^/]+(?:/[^/]+)?)/resolve/[^/]+/"
)


@dataclass(frozen=True)
class Offer:
    """What a URL offers, from an answer's headers."""

    version: Version
    sha256: str | None
    """Hugging Face states it for files in LFS or Xet, as `X-Linked-Etag`."""
    pinned: str | None
    """The URL of exactly this version; Hugging Face names the commit, as `X-Repo-Commit`."""


def of(answer: Answer, url: str) -> Offer:
    """The offer in the headers of an answer."""
    match = CONTENT_RANGE.fullmatch(answer.header("Content-Range") or "")
    size = int(match[3]) if answer.status == 206 and match else _length(answer)
    if answer.status == 416:
        size = None  # Content-Length is that of an error page
    linked = (answer.headers.get("x-linked-etag") or "").strip('"')
    commit = answer.headers.get("x-repo-commit") or ""
    page = _HUGGING_FACE.match(url) if re.fullmatch(r"[0-9a-f]{40}", commit) else None
    return Offer(
        Version(size, answer.header("ETag"), answer.header("Last-Modified")),
        linked if re.fullmatch(r"[0-9a-f]{64}", linked) else None,
        f"{page[1]}/resolve/{commit}/{url[page.end() :]}" if page else None,
    )


def ask(url: str, label: str, web: Web) -> Offer:
    """Request one byte, for the headers; `label` begins messages. Raises Failure."""
    return web.ask(url, label, lambda answer: of(answer, url), {"Range": "bytes=0-0"})


def _length(answer: Answer) -> int | None:
    text = answer.header("Content-Length")
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text) else None
