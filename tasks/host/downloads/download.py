"""Downloads one file: several ranges at once, resumable, verified.

The bytes go to a partial file; the caller renames it only when length, content and sha256 are
right. The sha256 of the contiguous beginning is computed while the rest is still downloaded.
"""

from __future__ import annotations

import errno
import threading
from dataclasses import replace

from ..storage.disk_space import DiskSpace
from ..system.failure import Failure
from ..system.program_files import PROGRAM
from . import content_check, remote_file
from .byte_ranges import Spans
from .download_request import Downloaded, DownloadRequest, Meter, OtherContent
from .partial_file import Part, Version
from .prefix_hash import PrefixHash
from .server_errors import Denied, Transient
from .web import HOST_CONNECTIONS, Answer, Web

FIRST = 8 << 20
"""Bytes of the first request; a smaller file needs no second one."""
LONGEST_SPAN = 64 << 20
"""Bytes of one request; long enough that its round trip doesn't matter."""
RESTARTS = 3
RESET_AFTER = 1 << 20
"""Bytes after which the count of failed attempts starts again."""
CHANGED = "the file changes while it is downloaded"
NO_RANGES = "the server no longer answers with ranges"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Restart(Exception):  # noqa: N818  reads as what is done
    """The partial content is useless: start again; `plainly`: without ranges."""

    def __init__(self, why: str, *, plainly: bool = False) -> None:
        super().__init__(why)
        self.plainly = plainly


def download(
    request: DownloadRequest, part: Part, web: Web, space: DiskSpace, meter: Meter
) -> Downloaded:
    """Fill the partial file. Raises Failure; the next run then resumes it."""
    plainly = False
    for _ in range(1 + RESTARTS):
        try:
            return _Download(request, part, web, space, meter, plainly).run()
        except _Restart as restart:
            why, plainly = str(restart), plainly or restart.plainly
            part.restart(Version())
        except OSError as error:
            if error.errno in _FULL:
                raise Failure(f"{request.label}: no space left in {part.path.parent}") from error
            raise
        finally:
            space.release(request.label)
    raise Failure(f"{request.label}: {why}, {1 + RESTARTS} times: see what the server is doing")


class _Download:
    def __init__(
        self,
        request: DownloadRequest,
        part: Part,
        web: Web,
        space: DiskSpace,
        meter: Meter,
        plainly: bool,
    ) -> None:
        self.request, self.part, self.web, self.space, self.meter = request, part, web, space, meter
        self.plainly = plainly
        self.offered: str | None = None
        """The sha256 that the host states."""
        self.pinned: str | None = None
        self.spread = part.resumed
        """Whether the content comes from more than one answer."""
        self._begun = False
        self._spans = Spans(part.missing)
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._hash = PrefixHash(part)

    def run(self) -> Downloaded:
        try:
            if self.plainly:
                self._restart(Version())
            gaps = self.part.missing(self._size or FIRST)
            # The first answer shows size, version, and whether the server supports ranges.
            if not gaps and self.request.sha256 is None:
                self._check_version()
            for start, end in gaps[:1]:
                self._fetch(start, min(end, start + FIRST))
            if self.part.missing(self._size or 0):
                self._check_content()
                self._fetch_rest(self._size or 0)
            digest = self._hash.finish()
        finally:
            self._hash.stop()
        self._check(digest)
        return Downloaded(digest, self.part.version or Version(), self._size or 0, self.pinned)

    def _check_version(self) -> None:
        """Restart if the server has another version of a part that is already complete."""
        offered = remote_file.ask(self.request.url, self.request.label, self.web)
        if self.part.version and not offered.version.fits(self.part.version):
            raise _Restart(CHANGED)
        self.offered, self.pinned = offered.sha256, offered.pinned

    @property
    def _size(self) -> int | None:
        return self.part.version.size if self.part.version else None

    def _restart(self, version: Version) -> None:
        self.part.restart(version)
        self._hash.restart()
        self._begun = False

    def _fetch_rest(self, total: int) -> None:
        self.spread = True
        self._hash.start()
        spans = -(-(total - self.part.have.total) // FIRST)
        helpers = [
            threading.Thread(target=self._work, args=(total,), daemon=True)
            for _ in range(min(HOST_CONNECTIONS, spans) - 1)
        ]
        for helper in helpers:
            helper.start()
        self._work(total)
        for helper in helpers:
            helper.join()
        if self._failure:
            raise self._failure

    def _work(self, total: int) -> None:
        """Fetch spans until none is left or one fails."""
        try:
            longest = max(FIRST, min(LONGEST_SPAN, total // (4 * HOST_CONNECTIONS)))
            while not self._failure and (span := self._spans.claim(total, longest)):
                self._fetch(*span)
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error

    def _fetch(self, start: int, end: int) -> None:
        """Fetch the bytes from `start` to `end`; transient errors are retried."""
        position, attempt, mark = start, 0, self.part.have.total
        while position < min(end, self._size or end) and not self._failure:
            try:
                position = self._fetch_once(position, end)
            except Transient as transient:
                position = self._resume_position(start, end)
                # Bytes of all connections: a busy server refuses some while it serves others.
                if (have := self.part.have.total) - mark >= RESET_AFTER:
                    attempt, mark = 0, have
                attempt += 1
                self.web.tolerance.pause_or_fail(attempt, transient, self.request.label)

    def _resume_position(self, start: int, end: int) -> int:
        """Where to resume after an incomplete answer."""
        if self.part.version is None or self.part.version.validator is None or self.plainly:
            self._restart(Version())
            return 0
        gaps = [gap for gap in self.part.missing(end) if gap[1] > start]
        return max(start, gaps[0][0]) if gaps else end

    def _fetch_once(self, start: int, end: int) -> int:
        """Request a span once and write the answer; return where it ends."""
        version = self.part.version
        headers = {} if self.plainly else {"Range": f"bytes={start}-{end - 1}"}
        if version and version.validator and not self.plainly:
            headers["If-Range"] = version.validator
        with self.web.get(self.request.url, self.request.label, headers) as answer:
            position, stop = self._accept(answer, start, end)
            for chunk in answer.chunks():
                if self._failure:
                    return position
                if position == 0:
                    content_check.refuse_page(
                        self.request.label, chunk, answer.header("Content-Type")
                    )
                if position == stop:
                    break  # the server sends more than announced
                chunk = chunk if stop is None else chunk[: stop - position]
                self.part.write(chunk, position)
                position += len(chunk)
                self.space.use(self.request.label, len(chunk))
                self.meter.advance(self.request.label, len(chunk))
        if stop is None:
            if position == 0:
                raise Failure(f"{self.request.label}: the file is empty: correct the url")
            self.part.version = replace(self.part.version or Version(), size=position)
        elif position < stop:
            raise Transient("the answer ended too early")
        return position

    def _accept(self, answer: Answer, start: int, end: int) -> tuple[int, int | None]:
        """The span of this answer (end None: unknown). Raises if the answer can't be used."""
        if answer.header("Content-Encoding") not in (None, "", "identity"):
            raise Denied(f"{self.request.label}: the server encodes it without being asked to")
        if answer.status == 416:
            if (answer.header("Content-Range") or "").strip() == "bytes */0":
                raise Failure(f"{self.request.label}: the file is empty: correct the url")
            raise _Restart("the server has no such range", plainly=start == 0 or self._begun)
        version = remote_file.of(answer, self.request.url).version
        if answer.status != 206:
            return self._accept_whole(answer, version)
        match = remote_file.CONTENT_RANGE.fullmatch(answer.header("Content-Range") or "")
        begin, stop, total = map(int, match.groups()) if match else (-1, 0, 0)
        stop += 1
        if not start == begin < stop <= total:
            raise _Restart("the server answers with another range", plainly=True)
        if self.part.version in (None, Version()):
            if stop < total and version.validator is None:
                raise _Restart("the server doesn't state a version", plainly=True)
            self._restart(version)
        elif self.part.version and not version.fits(self.part.version):
            raise _Restart(CHANGED)
        else:
            self.spread = True
        self._begin(answer)
        return start, min(stop, end)

    def _accept_whole(self, answer: Answer, version: Version) -> tuple[int, int | None]:
        # Refuse a page before discarding the partial content.
        content_check.refuse_page(self.request.label, b"", answer.header("Content-Type"))
        if self._spans:
            same = version.fits(self.part.version or Version())
            raise _Restart(NO_RANGES if same else CHANGED, plainly=same)
        chunked = "chunked" in (answer.header("Transfer-Encoding") or "").lower()
        if version.size is None and not chunked and self.request.sha256 is None:
            raise Denied(
                f"{self.request.label}: the server doesn't state its length: give its sha256"
            )
        if version.size == 0:
            raise Failure(f"{self.request.label}: the file is empty: correct the url")
        self._restart(version)
        self._begin(answer)
        # Without a known end, a broken answer looks complete; a wrong sha256 is then retried.
        self.spread = version.size is None and not chunked
        return 0, version.size

    def _begin(self, answer: Answer) -> None:
        """Check the first answer: is it the right file, and is there space for it?"""
        if self._begun:
            return
        self._begun = True
        label, request, total = self.request.label, self.request, self._size
        offered = remote_file.of(answer, request.url)
        self.offered, self.pinned = offered.sha256, offered.pinned
        if request.sha256 and self.offered and self.offered != request.sha256:
            raise Denied(f"{label}: {content_check.mismatch(self.offered, request.sha256, label)}")
        if request.size and total is not None and total != request.size:
            raise Denied(
                f"{label}: the server has {total} bytes, {request.size} were expected: "
                f"{PROGRAM} update {label} takes the new one"
            )
        have = self.part.have.total
        if total is not None:
            self.space.reserve(label, total - have)
        self.meter.begin(label, total, have)
        if total is None or total > FIRST:
            self._hash.start()

    def _check(self, digest: str) -> None:
        version, expected = self.part.version or Version(), self.request.sha256 or self.offered
        if expected and digest != expected:
            why = content_check.mismatch(digest, expected, self.request.label)
            if self.spread:
                raise _Restart(why, plainly=True)
            self.part.discard()
            got = Downloaded(digest, version, version.size or 0, self.pinned)
            raise OtherContent(f"{self.request.label}: {why}", got)
        self._check_content()

    def _check_content(self) -> None:
        """Check the content against the ending, as far as it is downloaded."""
        try:
            content_check.check(
                self.request.label, self.part.descriptor, self._size or 0, self.part.prefix
            )
        except Failure:
            self.part.discard()
            raise
