"""Models to download: fetched once into the store, verified, linked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..engine import space
from ..engine.run import Run
from ..engine.step import Task, step
from ..host.downloads import civitai, remote_file
from ..host.downloads.download_request import DownloadRequest
from ..host.downloads.store import Store, hash_file, stamp
from ..host.downloads.web import Tolerance, Web
from ..host.storage.disk_space import DiskSpace
from ..host.system import files, thread_pool
from ..host.system.failure import Failure
from ..host.system.progress import Progress
from ..host.system.units import duration, size
from ..spec import ModelFile, ModelPin
from . import model_pins, placement


def tasks(run: Run) -> Iterator[Task]:
    yield step(
        run,
        "models",
        "Models: downloaded into the store, verified, linked",
        check=partial(_why_outdated, run),
        action=partial(_provide, run),
        preview=partial(_preview, run),
        after=["directories"],
        garbage=store_of(run).parts,
    )


def store_of(run: Run) -> Store:
    return Store(Path(run.machine.models.store or run.machine.models.folder))


@dataclass
class _Job:
    """One content, and the models that have it."""

    pin: ModelPin
    files: list[ModelFile] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.files[0].target

    @property
    def optional(self) -> bool:
        return all(file.optional for file in self.files)


@dataclass
class _Downloading:
    """The state that the threads of one run share."""

    run: Run
    store: Store
    web: Web
    space: DiskSpace
    progress: Progress


def _why_outdated(run: Run) -> str | None:
    records = model_pins.read_records(run)
    check = _Check(run, records)
    wrong = [(f.target, why) for f in model_pins.downloads(run) if (why := check.wrong(f))]
    if wrong:
        others = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return f"{wrong[0][0]} {wrong[0][1]}{others}"
    if removed := _removed_targets(run, records):
        return f"{', '.join(removed)} left machine.yaml"
    if model_pins.is_lock_updated(run) and run.machine.lock.models != model_pins.lock_section(
        run, records
    ):
        return f"{run.machine.lock_file.name} doesn't have all of them"
    return None


class _Check:
    """Compares each model with the disk, with one stat per file."""

    def __init__(self, run: Run, records: dict[str, dict[str, Any]]) -> None:
        self._run = run
        self._records = records
        self._folder, self._store = str(run.machine.models.folder), str(store_of(run).folder)

    def wrong(self, file: ModelFile) -> str | None:
        pin = model_pins.pin(self._run, file, self._records)
        if pin.sha256 is None:
            return "was never fetched"
        record, now = self._records.get(file.target, {}), stamp(f"{self._store}/{pin.sha256}")
        if now is None:
            return "isn't in the store"
        same = record.get("sha256") == pin.sha256
        if not same or now != (record.get("size"), record.get("mtime")):
            return "changed, or this machine has not verified it yet"
        text = placement.link_to_store(self._run, file.target, pin.sha256)
        if files.link_target(f"{self._folder}/{file.target}") != text:
            return "isn't linked, or to another file"
        return None


def _removed_targets(run: Run, records: dict[str, dict[str, Any]]) -> list[str]:
    return sorted(set(records) - {file.target for file in model_pins.downloads(run)})


def _jobs(run: Run, records: dict[str, dict[str, Any]]) -> list[_Job]:
    jobs: dict[str, _Job] = {}
    check = _Check(run, records)
    for file in model_pins.downloads(run):
        if check.wrong(file):
            pin = model_pins.pin(run, file, records)
            jobs.setdefault(pin.sha256 or pin.url, _Job(pin)).files.append(file)
    return list(jobs.values())


def _provide(run: Run, log: Path) -> None:
    """Download and link all models. Raises Failure with a line for each one that fails."""
    model_pins.require_pins(run)
    records = model_pins.read_records(run)
    _prune(run, records)
    jobs = _jobs(run, records)
    store = store_of(run)
    _make_store(run, store, records)
    # Record the targets first: whatever happens now, a later run knows that they are ours.
    records = {f.target: {"url": f.url} for job in jobs for f in job.files} | records
    model_pins.write_records(run, records)
    disk_space = space.models_space(run, store.folder)
    to = _Downloading(run, store, model_pins.web_of(run), disk_space, Progress("models"))
    for job in jobs:
        to.progress.add(job.name, job.pin.size)
    recorder = model_pins.Recorder(run, records)
    with run.board.following(to.progress, partial(run.progress, "models")):
        done = thread_pool.each(
            partial(_provide_one, to, recorder), jobs, model_pins.AT_ONCE, ramp=True
        )
    recorder.write()
    _report(to, sum(len(job.files) for job, result in done if result is None))
    failures = [(job, result) for job, result in done if isinstance(result, BaseException)]
    for job, failure in failures:
        if job.optional:
            run.warn(f"model {job.name} (optional) is missing: {failure}")
    lines = [str(failure) for job, failure in failures if not job.optional]
    if lines:
        raise Failure("\n    ".join([f"{len(lines)} models failed:", *lines])
                      if len(lines) > 1 else lines[0])  # fmt: skip


def _make_store(run: Run, store: Store, records: dict[str, dict[str, Any]]) -> None:
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
        empty = not any(store.folder.iterdir())
    except OSError as error:
        what = " (a file or a broken link)" if os.path.lexists(store.folder) else ""
        raise Failure(
            f"the store {store.folder} can't be created{what}: {error.strerror}; mount it, move "
            "what is there away, or correct models.store"
        ) from None
    if empty and (count := sum("mtime" in record for record in records.values())):
        run.warn(f"{store.folder} is empty, and should have {count} models: is its volume mounted?")


def _provide_one(to: _Downloading, notes: model_pins.Recorder, job: _Job) -> None:
    failed = True
    try:
        pin = _obtain(to, job)
        for file in job.files:
            text = placement.link_to_store(to.run, file.target, str(pin.sha256))
            placement.link(to.run, file.target, text)
        held = stamp(to.store.place(str(pin.sha256)))
        notes.add(
            job.files, pin.model_copy(update={"size": held and held[0]}), held[1] if held else 0
        )
        failed = False
    except OSError as error:
        what = f"{error.strerror or error}: {error.filename or to.store.folder}"
        raise Failure(f"{job.name}: {what}") from error
    finally:
        to.progress.end(job.name, failed=failed)


def _obtain(to: _Downloading, job: _Job) -> ModelPin:
    """Bring the content into the store: adopt it or download it. Raises Failure, OSError."""
    for file in job.files:
        placement.refuse_links_in_path(to.run, file.target)
    pin = _complete_pin(to, job)
    sha256, store = pin.sha256, to.store
    for file in job.files:
        if at := placement.file_in_the_way(to.run, file.target):
            _adopt(to, job, pin, at)
    if sha256 and (stored := stamp(store.place(sha256))):
        # A read-only store can't record the verification, but works.
        if store.holds(sha256) or store.verify(sha256, to.progress, job.name):
            return pin.model_copy(update={"size": stored[0]})
        to.run.tell(f"{job.name} was damaged: downloading it again")
    request = DownloadRequest(job.name, pin.download or pin.url, sha256, pin.size)
    got = store.fetch(request, to.web, to.space, to.progress)
    return pin.model_copy(
        update={
            "sha256": got.sha256,
            "size": got.size,
            "download": pin.download or (got.pinned if got.pinned != pin.url else None),
        }
    )


def _complete_pin(to: _Downloading, job: _Job) -> ModelPin:
    """The pin, completed by its host where the download needs that. Raises Failure."""
    pin = job.pin
    if civitai.is_page(pin.url) and pin.download is None:
        address, sha256 = civitai.newest(pin.url, job.name, to.web)
        return pin.model_copy(update={"download": address, "sha256": pin.sha256 or sha256})
    has_file = any(placement.file_in_the_way(to.run, file.target) for file in job.files)
    if has_file and pin.sha256 is None:
        offered = remote_file.ask(pin.url, job.name, to.web)
        return pin.model_copy(
            update={
                "sha256": offered.sha256,
                "size": offered.version.size,
                "download": offered.pinned,
            }
        )
    return pin


def _adopt(to: _Downloading, job: _Job, pin: ModelPin, at: Path) -> None:
    """Move a real file into the store if its content is right. Raises Failure if it isn't."""
    if pin.sha256 is None:
        own = hash_file(at, to.progress, job.name)
        raise Failure(
            f"{at} is in the way of a link, and its content can't be checked: if it is the right "
            f"file, add sha256: {own}; if not, move it aside"
        )
    right = pin.size in (None, at.stat().st_size)
    if not right or hash_file(at, to.progress, job.name) != pin.sha256:
        raise Failure(
            f"{at} is in the way of a link, and isn't {job.name} by sha256: move it aside"
        )
    to.store.adopt(at, pin.sha256)
    to.run.tell(f"{at} was there already: moved it into the store")


def _report(to: _Downloading, provided: int) -> None:
    shot = to.progress.snapshot()
    moved = sum(item.moved for item in to.progress.items.values())
    rate = f" ({size(moved / shot['seconds'])}/s)" if moved and shot["seconds"] >= 1 else ""
    if provided:
        plural = "" if provided == 1 else "s"
        took = duration(shot["seconds"])
        to.run.tell(f"{provided} model{plural} provided, {size(moved)} read in {took}{rate}")


def _prune(run: Run, records: dict[str, dict[str, Any]]) -> None:
    """Remove links of models that left machine.yaml; their files stay in the store."""
    declared = {file.target for file in run.machine.models.files}
    for target in _removed_targets(run, records):
        record = records.pop(target)
        if target not in declared and record.get("sha256"):
            at = placement.place(run, target)
            if files.link_target(at) == placement.link_to_store(run, target, record["sha256"]):
                placement.refuse_read_only(run, f"removing {target}", at.parent)
                at.unlink()


def _preview(run: Run, log: Path) -> list[str]:
    """One line for each download, with host and size. Raises Failure."""
    model_pins.require_pins(run)
    records, store, web = model_pins.read_records(run), store_of(run), model_pins.web_of(run)
    web.tolerance = Tolerance(attempts=2)
    jobs = _jobs(run, records)
    fetched = [job for job in jobs if not (job.pin.sha256 and stamp(store.place(job.pin.sha256)))]
    lines = [f"remove the link {target}" for target in _removed_targets(run, records)]
    lines += [f"verify and link {job.name}" for job in jobs if job not in fetched]
    total, unknown = 0, 0
    for job, result in thread_pool.each(partial(_size, web), fetched, model_pins.AT_ONCE):
        if isinstance(result, BaseException):
            run.warn(str(result))
        count = result if isinstance(result, int) else None
        total, unknown = total + (count or 0), unknown + (count is None)
        host = (job.pin.download or job.pin.url).split("/")[2]
        lines.append(f"download {job.name} from {host}: {'?' if count is None else size(count)}")
    if fetched:
        more = f", {unknown} of unknown size" if unknown else ""
        lines.append(f"{size(total)} to download in all{more}")
    return lines


def _size(web: Web, job: _Job) -> int | None:
    pin = job.pin
    if pin.size is not None:
        return pin.size
    url = pin.download or pin.url
    if civitai.is_page(url):
        url, _ = civitai.newest(url, job.name, web)
    return remote_file.ask(url, job.name, web).version.size
