"""Jobs and assets in the form of the Comfy API v2."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.requests import Request

from ...spec.layout import Layout
from ..jobs.api_words import error, iso, status
from ..jobs.job_settings import Settings
from ..jobs.output_folders import OutputFolders
from ..jobs.record import Record, Webhook
from .asset_files import Asset
from .job_view import JobView
from .output_files import OutputFile, outputs_of
from .waiting_reasons import WaitingReasons

PREFIX = "/api/v2"
Json = dict[str, Any]


def base(request: Request) -> str:
    """Where the client reached us, to which links lead back."""
    return f"{request.url.scheme}://{request.url.netloc}"


class JobAnswers:
    """Answers about what is in the view and on the disk."""

    def __init__(self, settings: Settings, view: JobView, reasons: WaitingReasons) -> None:
        self._keep, self._view, self._reasons = settings.keep, view, reasons
        self._folders = OutputFolders(Layout(settings.workspace))

    async def job(self, record: Record, base: str) -> Json:
        """A job with all that is known of it; `base` begins its links."""
        progress = self._view.progress(record.id) if record.state == "leased" else None
        started = 0.0 if record.state == "waiting" else record.started
        link = f"{base}{PREFIX}/jobs/{record.id}"
        return {
            **self.summary(record),
            "created_at": iso(record.submitted),
            "started_at": iso(started) if started else None,
            "completed_at": iso(record.ended) if record.ended else None,
            "expires_at": iso(self._expires(record)),
            "progress": progress.snapshot() if progress else None,
            "outputs": await self.outputs(record, base),
            "metrics": {
                "queue_ms": _milliseconds(record.submitted, started),
                "execution_ms": _milliseconds(started, record.ended),
            },
            "urls": {"self": link, "events": f"{link}/events", "cancel": f"{link}/cancel"},
        }

    def summary(self, record: Record) -> Json:
        """A job in a list."""
        return {
            "id": record.id,
            "status": status(record),
            "create_time": iso(record.submitted),
            "update_time": iso(max(record.submitted, record.started, record.ended)),
            "queue_position": self._view.place(record.id),
            "priority": record.priority,
            "metadata": record.labels,
            "owner": record.owner,
            "instance": record.instance or None,
            "attempt": record.counted,
            "waits_because": self._reasons.why(record),
            "error": error(record),
            "webhook": _webhook(record.webhook),
        }

    def files(self, record: Record) -> list[OutputFile]:
        """What the job has made, also while it runs. Only files below a folder of the job count
        then: others may be moved yet."""
        if record.outputs or record.state != "leased":
            return [*outputs_of(record, record.outputs)]
        progress = self._view.progress(record.id)
        mine = f"jobs/{record.id}"
        heard = outputs_of(record, progress.outputs if progress else {})
        return [each for each in heard if f"{each.subfolder}/".startswith(f"{mine}/")]

    async def outputs(self, record: Record, base: str) -> list[Json]:
        """The job's outputs; those that are gone have the size 0."""
        files = self.files(record)
        if not files:
            return []
        there = {} if record.gone and not record.stored else record.sizes
        here = await asyncio.to_thread(lambda: [*map(self._size, files)])
        sizes = [
            there.get(each.name) if size is None else size
            for each, size in zip(files, here, strict=True)
        ]
        running = record.state == "leased"
        return [
            self._output(each, size or 0, self._expires(record), base)
            for each, size in zip(files, sizes, strict=True)
            if size is not None or not running
        ]

    def _size(self, output: OutputFile) -> int | None:
        try:
            path = self._folders.locate(output.name, output.subfolder, output.type, output.instance)
            return None if path is None else path.stat().st_size
        except OSError:
            return None

    def asset(self, asset: Asset, base: str, **more: Any) -> Json:
        """An uploaded asset."""
        return {
            "id": asset.id,
            "hash": f"blake3:{asset.digest}",
            "size_bytes": asset.size,
            "content_type": asset.content_type,
            "file_path": asset.id,
            "created_at": iso(asset.created),
            "url": _content(asset.id, base),
            "url_expires_at": iso(time.time() + self._keep),
            **more,
        }

    def output_asset(self, output: OutputFile, record: Record, size: int, base: str) -> Json:
        """An output as an asset."""
        return {
            **self._output(output, size, self._expires(record), base),
            "file_path": output.name,
            "created_at": iso(record.ended or record.submitted),
            "expires_at": iso(self._expires(record)),
        }

    def _output(self, output: OutputFile, size: int, expires: float, base: str) -> Json:
        return {
            "node_id": output.node,
            "name": output.name,
            "type": output.kind,
            "content_type": output.content_type,
            "size_bytes": size,
            "id": output.id,
            "hash": None,
            "url": _content(output.id, base),
            "url_expires_at": iso(expires),
            "job_id": output.job,
        }

    def _expires(self, record: Record) -> float:
        return (record.ended or time.time()) + self._keep


def _webhook(hook: Webhook | None) -> Json | None:
    """Who is told of the end. What comes after the path often is a password."""
    if hook is None:
        return None
    return {
        "url": hook.url.partition("#")[0].partition("?")[0],
        "status": hook.state,
        "attempts": hook.attempts,
        "next_attempt_at": iso(hook.due) if hook.due else None,
        "delivered_at": iso(hook.told) if hook.told else None,
        "error": hook.error or None,
    }


def _content(asset: str, base: str) -> str:
    return f"{base}{PREFIX}/assets/{asset}/content"


def _milliseconds(begin: float, end: float) -> int | None:
    return round((end - begin) * 1000) if begin and end else None
