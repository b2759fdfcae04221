"""Models that are downloads: fetched once into the store, verified, linked."""

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
from ..host.downloads.download_request import Wanted
from ..host.downloads.store import Store, hash_file, stamp
from ..host.downloads.web import Patience, Web
from ..host.storage.disk_space import Room
from ..host.system import files, thread_pool
from ..host.system.failure import Failure
from ..host.system.progress import Progress
from ..host.system.units import duration, size
from ..spec import ModelFile, ModelPin
from . import model_pins, placement


def tasks(run: Run) -> Iterator[Task]:
    yield step(
        run,
        "models:",
        "Models: downloaded into the store, verified, linked",
        check=partial(_missing, run),
        action=partial(_provide, run),
        foresee=partial(_foresee, run),
        after=["directories"],
        garbage=store_of(run).parts,
    )


def store_of(run: Run) -> Store:
    return Store(Path(run.machine.models.store or run.machine.models.folder))


@dataclass
class _Job:
    """One content, and the models that it is."""

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
    """What the threads of one run share."""

    run: Run
    store: Store
    web: Web
    room: Room
    progress: Progress


def _missing(run: Run) -> str | None:
    noted = model_pins.noted(run)
    looked = _Looked(run, noted)
    wrong = [(f.target, why) for f in model_pins.wanted(run) if (why := looked.wrong(f))]
    if wrong:
        others = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return f"{wrong[0][0]} {wrong[0][1]}{others}"
    if gone := _gone(run, noted):
        return f"{', '.join(gone)} left machine.yaml"
    if model_pins.recorded(run) and run.machine.lock.models != model_pins.lock_section(run, noted):
        return f"{run.machine.lock_file.name} doesn't have all of them"
    return None


class _Looked:
    """What is wrong with each model, seen with one look at the disk per file."""

    def __init__(self, run: Run, noted: dict[str, dict[str, Any]]) -> None:
        self._run = run
        self._noted = noted
        self._folder, self._store = str(run.machine.models.folder), str(store_of(run).folder)

    def wrong(self, file: ModelFile) -> str | None:
        pin = model_pins.pin(self._run, file, self._noted)
        if pin.sha256 is None:
            return "was never fetched"
        seen, now = self._noted.get(file.target, {}), stamp(f"{self._store}/{pin.sha256}")
        if now is None:
            return "isn't in the store"
        known = seen.get("sha256") == pin.sha256
        if not known or now != (seen.get("size"), seen.get("mtime")):
            return "was changed, or not seen by this machine yet"
        text = placement.link_to_store(self._run, file.target, pin.sha256)
        if files.link_target(f"{self._folder}/{file.target}") != text:
            return "isn't linked to what it is to be"
        return None


def _gone(run: Run, noted: dict[str, dict[str, Any]]) -> list[str]:
    return sorted(set(noted) - {file.target for file in model_pins.wanted(run)})


def _jobs(run: Run, noted: dict[str, dict[str, Any]]) -> list[_Job]:
    jobs: dict[str, _Job] = {}
    looked = _Looked(run, noted)
    for file in model_pins.wanted(run):
        if looked.wrong(file):
            pin = model_pins.pin(run, file, noted)
            jobs.setdefault(pin.sha256 or pin.url, _Job(pin)).files.append(file)
    return list(jobs.values())


def _provide(run: Run, log: Path) -> None:
    """Raises Failure with a line for each model that could not be had; the others are there."""
    model_pins.insist_on_lock(run)
    noted = model_pins.noted(run)
    _prune(run, noted)
    jobs = _jobs(run, noted)
    store = store_of(run)
    _make_store(run, store, noted)
    # Whatever happens from here, what left machine.yaml later is known to be ours.
    noted = {f.target: {"url": f.url} for job in jobs for f in job.files} | noted
    model_pins.note(run, noted)
    room = space.room_for_models(run, store.folder)
    to = _Downloading(run, store, model_pins.web_of(run), room, Progress("models"))
    for job in jobs:
        to.progress.add(job.name, job.pin.size)
    writer = model_pins.Notes(run, noted)
    with run.board.following(to.progress, partial(run.progress, "models")):
        done = thread_pool.each(partial(_attempt, to, writer), jobs, model_pins.AT_ONCE, ramp=True)
    writer.write()
    _tell(to, sum(len(job.files) for job, result in done if result is None))
    failures = [(job, result) for job, result in done if isinstance(result, BaseException)]
    for job, failure in failures:
        if job.optional:
            run.warn(f"model {job.name} (optional) isn't there: {failure}")
    lines = [str(failure) for job, failure in failures if not job.optional]
    if lines:
        raise Failure("\n    ".join([f"{len(lines)} models could not be had:", *lines])
                      if len(lines) > 1 else lines[0])  # fmt: skip


def _make_store(run: Run, store: Store, noted: dict[str, dict[str, Any]]) -> None:
    """Raises Failure when there can be none."""
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
        empty = not any(store.folder.iterdir())
    except OSError as error:
        there = " (a file, or a link to nothing)" if os.path.lexists(store.folder) else ""
        raise Failure(
            f"the store {store.folder} can't be made{there}: {error.strerror}; mount it, move what "
            "is there away, or correct models.store"
        ) from None
    if empty and (known := sum("mtime" in seen for seen in noted.values())):
        run.warn(
            f"{store.folder} was empty and had {known} models: if it is a volume, is it mounted?"
        )


def _attempt(to: _Downloading, notes: model_pins.Notes, job: _Job) -> None:
    failed = True
    try:
        pin = _have(to, job)
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


def _have(to: _Downloading, job: _Job) -> ModelPin:
    """Bring the content into the store, from where it can be had. Raises Failure, OSError."""
    for file in job.files:
        placement.refuse_climbing(to.run, file.target)
    pin = _completed(to, job)
    sha256, store = pin.sha256, to.store
    for file in job.files:
        if at := placement.in_the_way(to.run, file.target):
            _adopt(to, job, pin, at)
    if sha256 and (there := stamp(store.place(sha256))):
        # A store that is a read-only volume takes no note of it, and serves all the same.
        if store.holds(sha256) or store.verify(sha256, to.progress, job.name):
            return pin.model_copy(update={"size": there[0]})
        to.run.tell(f"{job.name} was damaged: it is fetched again")
    wanted = Wanted(job.name, pin.download or pin.url, sha256, pin.size)
    got = store.fetch(wanted, to.web, to.room, to.progress)
    return pin.model_copy(
        update={
            "sha256": got.sha256,
            "size": got.size,
            "download": pin.download or (got.pinned if got.pinned != pin.url else None),
        }
    )


def _completed(to: _Downloading, job: _Job) -> ModelPin:
    """The pin with what its host says, where that is needed before the download."""
    pin = job.pin
    if civitai.is_page(pin.url) and pin.download is None:
        address, sha256 = civitai.newest(pin.url, job.name, to.web)
        return pin.model_copy(update={"download": address, "sha256": pin.sha256 or sha256})
    there = any(placement.in_the_way(to.run, file.target) for file in job.files)
    if there and pin.sha256 is None:
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
    """Take a real file into the store when it is what is wanted. Raises Failure when it isn't."""
    aside = "move it aside, a link belongs there"
    if pin.sha256 is None:
        own = hash_file(at, to.progress, job.name)
        raise Failure(
            f"{at} is in the way, and nothing says whether it is the right file: if it is, write "
            f"sha256: {own}; if not, {aside}"
        )
    right = pin.size in (None, at.stat().st_size)
    if not right or hash_file(at, to.progress, job.name) != pin.sha256:
        raise Failure(f"{at} is in the way, and its sha256 is not that of {job.name}: {aside}")
    to.store.adopt(at, pin.sha256)
    to.run.tell(f"{at} was there already: it is now in the store")


def _tell(to: _Downloading, provided: int) -> None:
    shot = to.progress.snapshot()
    moved = sum(item.moved for item in to.progress.items.values())
    rate = f" ({size(moved / shot['seconds'])}/s)" if moved and shot["seconds"] >= 1 else ""
    if provided:
        plural = "" if provided == 1 else "s"
        took = duration(shot["seconds"])
        to.run.tell(f"{provided} model{plural} provided, {size(moved)} read in {took}{rate}")


def _prune(run: Run, noted: dict[str, dict[str, Any]]) -> None:
    """Remove links of models that left machine.yaml; what they point to stays in the store."""
    declared = {file.target for file in run.machine.models.files}
    for target in _gone(run, noted):
        seen = noted.pop(target)
        if target not in declared and seen.get("sha256"):
            at = placement.place(run, target)
            if files.link_target(at) == placement.link_to_store(run, target, seen["sha256"]):
                placement.refuse_read_only(run, f"removing {target}", at.parent)
                at.unlink()


def _foresee(run: Run, log: Path) -> list[str]:
    """What is to be downloaded, from where and how much. Raises Failure."""
    model_pins.insist_on_lock(run)
    noted, store, web = model_pins.noted(run), store_of(run), model_pins.web_of(run)
    web.patience = Patience(attempts=2)
    jobs = _jobs(run, noted)
    fetched = [job for job in jobs if not (job.pin.sha256 and stamp(store.place(job.pin.sha256)))]
    lines = [f"remove the link {target}" for target in _gone(run, noted)]
    lines += [f"look at {job.name}, and link it" for job in jobs if job not in fetched]
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
