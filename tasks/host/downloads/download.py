"""One file from one address: by several ranges at once, resumed, checked, never half of it.

Its bytes go to a part (`host.part`); only when length, content and sha256 are right does the
caller give it its name. The sha256 is computed behind the contiguous beginning while the rest
is on its way.
"""

from __future__ import annotations

import errno
import threading
from dataclasses import replace

from ..storage.disk_space import DiskSpace
from ..system.failure import Failure
from . import content_check, remote_file
from .byte_ranges import Spans
from .download_request import Downloaded, DownloadRequest, Meter, OtherContent
from .partial_file import Part, Version
from .prefix_hash import PrefixHash
from .server_errors import Denied, Transient
from .web import HOST_CONNECTIONS, Answer, Web

FIRST = 8 << 20
"""Bytes that the first request asks for; a smaller file takes no second one."""
LONGEST_SPAN = 64 << 20
"""Bytes of one request; long enough for its round trip not to matter."""
RESTARTS = 3
PROGRESS = 1 << 20
"""Bytes after which the tries of a request are counted anew."""
CHANGES = "the file changes while it is downloaded"
NO_RANGES = "the server no longer answers with ranges"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Restart(Exception):  # noqa: N818  reads as what is done
    """What is there is of no use: begin again, `plainly` without ranges."""

    def __init__(self, why: str, *, plainly: bool = False) -> None:
        super().__init__(why)
        self.plainly = plainly


def download(
    wanted: DownloadRequest, part: Part, web: Web, space: DiskSpace, meter: Meter
) -> Downloaded:
    """Fill the part. Raises Failure; what is in the part then serves the next run."""
    plainly = False
    for _ in range(1 + RESTARTS):
        try:
            return _Download(wanted, part, web, space, meter, plainly).run()
        except _Restart as restart:
            why, plainly = str(restart), plainly or restart.plainly
            part.restart(Version())
        except OSError as error:
            if error.errno in _FULL:
                raise Failure(f"{wanted.label}: no space left in {part.path.parent}") from error
            raise
        finally:
            space.release(wanted.label)
    raise Failure(f"{wanted.label}: {why}, {1 + RESTARTS} times: see what the server is doing")


class _Download:
    def __init__(
        self,
        wanted: DownloadRequest,
        part: Part,
        web: Web,
        space: DiskSpace,
        meter: Meter,
        plainly: bool,
    ) -> None:
        self.wanted, self.part, self.web, self.space, self.meter = wanted, part, web, space, meter
        self.plainly = plainly
        self.offered: str | None = None
        """The sha256 that the host says."""
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
            # One answer first: it tells size, version, and whether there are ranges.
            if not gaps and self.wanted.sha256 is None:
                self._see_again()
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

    def _see_again(self) -> None:
        """All of it was there before: is it still what the server has?"""
        offered = remote_file.ask(self.wanted.url, self.wanted.label, self.web)
        if self.part.version and not offered.version.fits(self.part.version):
            raise _Restart(CHANGES)
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
        """Fetch spans until none is left, or one fails."""
        try:
            longest = max(FIRST, min(LONGEST_SPAN, total // (4 * HOST_CONNECTIONS)))
            while not self._failure and (span := self._spans.claim(total, longest)):
                self._fetch(*span)
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error

    def _fetch(self, start: int, end: int) -> None:
        """Fetch the bytes from `start` to `end`; what fails and may pass is tried again."""
        position, attempt, mark = start, 0, self.part.have.total
        while position < min(end, self._size or end) and not self._failure:
            try:
                position = self._answered(position, end)
            except Transient as transient:
                position = self._reached(start, end)
                # Bytes of any connection: a busy server turns some away while it serves others.
                if (have := self.part.have.total) - mark >= PROGRESS:
                    attempt, mark = 0, have
                attempt += 1
                self.web.tolerance.pause_or_fail(attempt, transient, self.wanted.label)

    def _reached(self, start: int, end: int) -> int:
        """Where to resume after an answer that broke off."""
        if self.part.version is None or self.part.version.validator is None or self.plainly:
            self._restart(Version())
            return 0
        gaps = [gap for gap in self.part.missing(end) if gap[1] > start]
        return max(start, gaps[0][0]) if gaps else end

    def _answered(self, start: int, end: int) -> int:
        """Ask once for a span and write what comes; returns where it ends."""
        known = self.part.version
        headers = {} if self.plainly else {"Range": f"bytes={start}-{end - 1}"}
        if known and known.validator and not self.plainly:
            headers["If-Range"] = known.validator
        with self.web.get(self.wanted.url, self.wanted.label, headers) as answer:
            position, stop = self._accept(answer, start, end)
            for chunk in answer.chunks():
                if self._failure:
                    return position
                if position == 0:
                    content_check.refuse_page(
                        self.wanted.label, chunk, answer.header("Content-Type")
                    )
                if position == stop:
                    break  # more than was announced
                chunk = chunk if stop is None else chunk[: stop - position]
                self.part.write(chunk, position)
                position += len(chunk)
                self.space.use(self.wanted.label, len(chunk))
                self.meter.advance(self.wanted.label, len(chunk))
        if stop is None:
            if position == 0:
                raise Failure(f"{self.wanted.label}: the file is empty: correct the url")
            self.part.version = replace(self.part.version or Version(), size=position)
        elif position < stop:
            raise Transient("the answer ended too early")
        return position

    def _accept(self, answer: Answer, start: int, end: int) -> tuple[int, int | None]:
        """From where to where this answer goes (None: unknown); refuses what can't be used."""
        if answer.header("Content-Encoding") not in (None, "", "identity"):
            raise Denied(f"{self.wanted.label}: the server encodes it although it was not asked to")
        if answer.status == 416:
            if (answer.header("Content-Range") or "").strip() == "bytes */0":
                raise Failure(f"{self.wanted.label}: the file is empty: correct the url")
            raise _Restart("the server has no such range", plainly=start == 0 or self._begun)
        version = remote_file.of(answer, self.wanted.url).version
        if answer.status != 206:
            return self._accept_whole(answer, version)
        match = remote_file.CONTENT_RANGE.fullmatch(answer.header("Content-Range") or "")
        begin, stop, total = map(int, match.groups()) if match else (-1, 0, 0)
        stop += 1
        if not start == begin < stop <= total:
            raise _Restart("the server answers with another range", plainly=True)
        if self.part.version in (None, Version()):
            if stop < total and version.validator is None:
                raise _Restart("the server doesn't say which version it has", plainly=True)
            self._restart(version)
        elif self.part.version and not version.fits(self.part.version):
            raise _Restart(CHANGES)
        else:
            self.spread = True
        self._begin(answer)
        return start, min(stop, end)

    def _accept_whole(self, answer: Answer, version: Version) -> tuple[int, int | None]:
        # A page is refused before what is there is given up for it.
        content_check.refuse_page(self.wanted.label, b"", answer.header("Content-Type"))
        if self._spans:
            same = version.fits(self.part.version or Version())
            raise _Restart(NO_RANGES if same else CHANGES, plainly=same)
        chunked = "chunked" in (answer.header("Transfer-Encoding") or "").lower()
        if version.size is None and not chunked and self.wanted.sha256 is None:
            raise Denied(
                f"{self.wanted.label}: the server doesn't say how long it is: give its sha256"
            )
        if version.size == 0:
            raise Failure(f"{self.wanted.label}: the file is empty: correct the url")
        self._restart(version)
        self._begin(answer)
        # Where nothing tells the end, what breaks off looks whole: its sha256 gets another try.
        self.spread = version.size is None and not chunked
        return 0, version.size

    def _begin(self, answer: Answer) -> None:
        """What the very first answer shows: is it the file, and does it fit on the volume?"""
        if self._begun:
            return
        self._begun = True
        label, wanted, total = self.wanted.label, self.wanted, self._size
        offered = remote_file.of(answer, wanted.url)
        self.offered, self.pinned = offered.sha256, offered.pinned
        if wanted.sha256 and self.offered and self.offered != wanted.sha256:
            raise Denied(f"{label}: {content_check.other(self.offered, wanted.sha256, label)}")
        if wanted.size and total is not None and total != wanted.size:
            raise Denied(
                f"{label}: the server has {total} bytes, it was {wanted.size}: "
                f"doit update {label} takes the new one"
            )
        have = self.part.have.total
        if total is not None:
            self.space.reserve(label, total - have)
        self.meter.begin(label, total, have)
        if total is None or total > FIRST:
            self._hash.start()

    def _check(self, digest: str) -> None:
        version, expected = self.part.version or Version(), self.wanted.sha256 or self.offered
        if expected and digest != expected:
            why = content_check.other(digest, expected, self.wanted.label)
            if self.spread:
                raise _Restart(why, plainly=True)
            self.part.discard()
            got = Downloaded(digest, version, version.size or 0, self.pinned)
            raise OtherContent(f"{self.wanted.label}: {why}", got)
        self._check_content()

    def _check_content(self) -> None:
        """What its ending says has to be in it, as far as it is there."""
        try:
            content_check.check(
                self.wanted.label, self.part.descriptor, self._size or 0, self.part.prefix
            )
        except Failure:
            self.part.discard()
            raise
