"""Links to models that lie on disks and volumes, and extra_model_paths.yaml."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..engine.run import Run
from ..engine.step import Task, group, step
from ..host.downloads.store import hash_file, stamp
from ..host.system import files, thread_pool
from ..host.system.failure import Failure
from ..host.system.progress import Progress
from ..models import placement
from ..spec import ModelFile, problem_at
from . import folder_types, own_models

READERS = 4
"""Models that are hashed at once."""


def tasks(run: Run) -> Iterator[Task]:
    yield group("links", "Models: ComfyUI's own files, links to volumes, extra model paths")
    yield own_models.task(run)
    yield from folder_types.tasks(run)
    yield step(
        run,
        "links:prune",
        "Remove links to models that left machine.yaml",
        check=partial(_reason_to_prune, run),
        action=partial(_prune, run),
        after=["directories", "models"],
    )
    yield step(
        run,
        "links:files",
        "Link models that are on a disk already",
        check=partial(_why_outdated, run),
        action=partial(_link, run),
        preview=partial(_preview, run),
        after=["directories", "links:prune"],
    )


def folder_link_changes(run: Run) -> dict[str, str | None]:
    """Link to a folder that must change → its new target, or None to remove it.

    ComfyUI answers 500 once a folder that it has listed is gone, so no instance may run during
    the change.
    """
    links, targets = _our_links(run), _targets(run)
    found: dict[str, str | None] = {}
    for place, text in {**links, **targets}.items():
        if place not in links and not os.path.islink(place):  # noqa: PTH114  for 5,000 models
            continue
        now = files.link_target(Path(place))
        if now is not None and now != targets.get(place) and Path(place).is_dir():
            ours = now == text or place in targets
            if ours and place not in _declared(run) - set(targets):
                found[place] = targets.get(place)
    return found


def change_folder_links(run: Run) -> None:
    """Change those links. The caller must have stopped the instances."""
    for place, text in folder_link_changes(run).items():
        placement.refuse_read_only(run, f"the link {place}", Path(place).parent)
        _record(run, {place: text})
        if text is None:
            Path(place).unlink()
        else:
            files.point(Path(place), text)


def _sources(run: Run) -> list[ModelFile]:
    return [file for file in run.machine.models.files if file.source]


def _targets(run: Run) -> dict[str, str]:
    """Link → target for all models with a source."""
    folder = run.machine.models.folder
    return {f"{folder}/{file.target}": str(file.source) for file in _sources(run)}


def _declared(run: Run) -> set[str]:
    return {f"{run.machine.models.folder}/{file.target}" for file in run.machine.models.files}


def _why_outdated(run: Run) -> str | None:
    return next((why for _, why in _wrong(run)), None)


def _wrong(run: Run) -> Iterator[tuple[ModelFile, str]]:
    """The models with a source that aren't linked or verified, each with the reason."""
    links, verified, swapped = _our_links(run), _verified(run), folder_link_changes(run)
    for file in _sources(run):
        place, target = f"{run.machine.models.folder}/{file.target}", str(file.source)
        now = stamp(target)
        if now is None:
            yield file, f"{target} is missing"
        elif place in swapped:
            continue
        elif files.link_target(place) != target:
            yield file, f"{place} doesn't point at {target}"
        elif links.get(place) != target:
            yield file, f"{place} isn't recorded as our link"
        elif file.sha256 and verified.get(target) != [file.sha256, *now]:
            yield file, f"{target} changed, or is not verified yet"


def _link(run: Run, log: Path) -> None:
    """Link all models with a source. Raises Failure with a line for each one that fails."""
    links, verified, swapped = _our_links(run), _verified(run), folder_link_changes(run)
    problems = []
    wrong = [file for file, _ in _wrong(run)]
    for file, error in _prepare(run, wrong, verified):
        if error is None:
            links[str(placement.place(run, file.target))] = str(file.source)
        elif not isinstance(error, Failure | OSError):
            raise error
        elif file.optional:
            run.warn(f"model {file.target} (optional) is missing: {error}")
        else:
            problems.append(_located(run, file, str(error)))
    _write_receipt(run, links, verified)
    for file in wrong:
        place = placement.place(run, file.target)
        if links.get(str(place)) == str(file.source) and str(place) not in swapped:
            placement.link(run, file.target, str(file.source))
    if problems:
        raise Failure("\n    ".join(problems))


def _prepare(
    run: Run, wrong: Iterable[ModelFile], verified: dict[str, Any]
) -> list[tuple[ModelFile, BaseException | None]]:
    """Check these models and clear their places, several at a time; each with what is wrong."""
    progress = Progress("links")

    def prepare(file: ModelFile) -> None:
        _verify(run, file, verified, progress)
        _clear_place(run, file)

    with run.board.following(progress):
        return thread_pool.each(prepare, wrong, READERS)


def _preview(run: Run, log: Path) -> list[str]:
    wrong = [file for file, _ in _wrong(run)]
    missing = []
    for file in wrong:
        try:
            _existing_source(file)
        except Failure as failure:
            missing += [] if file.optional else [_located(run, file, str(failure))]
    if missing:
        raise Failure("\n    ".join(missing))
    return [f"link {file.target} to {file.source}" for file in wrong]


def _located(run: Run, file: ModelFile, message: str) -> str:
    """A message about a model, with its place in machine.yaml."""
    number = run.machine.models.files.index(file)
    return str(problem_at(run.machine.file, ("models", "files", number, "source"), message))


def pinned_sources(run: Run) -> list[ModelFile]:
    """The sources with a sha256."""
    return [file for file in _sources(run) if file.sha256]


def verify_source(run: Run, progress: Progress, file: ModelFile) -> str | None:
    """Hash a source again; return what is wrong with it, or None."""
    name, failed = str(file.source), True
    try:
        if hash_file(Path(name), progress, name) != file.sha256:
            return "has another sha256 now"
        failed = False
    except OSError as error:
        return f"can't be read ({error.strerror})"
    finally:
        progress.end(name, failed=failed)
    return None


def _existing_source(file: ModelFile) -> Path:
    at = Path(str(file.source))
    if stamp(at) is None:
        what = "is a broken link" if at.is_symlink() else "is missing"
        raise Failure(f"the source of {file.target} {what}: {at}; mount it or correct source")
    return at


def _verify(run: Run, file: ModelFile, verified: dict[str, Any], progress: Progress) -> None:
    """Check a source's sha256, once for each size and mtime. Raises Failure, OSError."""
    at = _existing_source(file)
    place = Path(os.path.realpath(run.machine.models.folder), file.target)
    if Path(os.path.realpath(at)) == place:
        raise Failure(f"the source of {file.target} links to the target itself: {at}")
    if file.sha256 is None:
        return
    if at.is_dir():
        raise Failure(f"{file.target}: a folder can't have a sha256: remove it")
    now = stamp(at)
    if now and verified.get(str(at)) != [file.sha256, *now]:
        found = hash_file(at, progress, file.target)
        progress.end(file.target)
        if found != file.sha256:
            raise Failure(
                f"the source of {file.target} has sha256 {found}, not {file.sha256}: replace "
                f"{at}, or correct sha256"
            )
        verified[str(at)] = [file.sha256, *now]


def _clear_place(run: Run, file: ModelFile) -> None:
    """Remove a copy of the source at the link's place. Raises Failure for anything else."""
    placement.refuse_links_in_path(run, file.target)
    at = placement.file_in_the_way(run, file.target)
    if at is None:
        return
    original = Path(str(file.source))
    counts = Progress("links")
    same = original.is_file() and original.stat().st_size == at.stat().st_size
    if not same or hash_file(at, counts, "at") != hash_file(original, counts, "original"):
        raise Failure(f"{at} is in the way of a link to {original}: move it aside")
    at.unlink()
    run.tell(f"{at} was a copy of {original}: replaced it by a link")


def _receipt(run: Run) -> Path:
    """The file that records the links that we made. No other link is ever removed."""
    return run.layout.state / "links.json"


def _our_links(run: Run) -> dict[str, str]:
    """Link → target, as recorded."""
    links: dict[str, str] = files.read_receipt(_receipt(run), links=dict).get("links", {})
    return links


def _verified(run: Run) -> dict[str, Any]:
    """Source → its sha256, size and mtime when it was verified."""
    verified: dict[str, Any] = files.read_receipt(_receipt(run)).get("verified", {})
    return verified


def _write_receipt(run: Run, links: dict[str, str], verified: dict[str, Any]) -> None:
    sources = {str(file.source) for file in _sources(run)}
    kept = {at: value for at, value in verified.items() if at in sources}
    files.write_receipt(_receipt(run), {"links": links, "verified": kept})


def _record(run: Run, changes: dict[str, str | None]) -> None:
    links = {**_our_links(run), **changes}
    kept = {place: text for place, text in links.items() if text is not None}
    _write_receipt(run, kept, _verified(run))


def _removed_links(run: Run) -> list[str]:
    """Our links that left machine.yaml or became downloads, without folders that instances use."""
    inside = f"{run.machine.models.folder}/"
    kept = {*_targets(run), *folder_link_changes(run)}
    return sorted(p for p in _our_links(run) if p.startswith(inside) and p not in kept)


def _reason_to_prune(run: Run) -> str | None:
    removed = _removed_links(run)
    return f"{', '.join(removed)} left machine.yaml" if removed else None


def _prune(run: Run, log: Path) -> None:
    links, declared, removed = _our_links(run), _declared(run), _removed_links(run)
    for place in removed:
        # Only if it is still as we made it.
        if place not in declared and files.link_target(place) == links[place]:
            placement.refuse_read_only(run, f"removing {place}", Path(place).parent)
            Path(place).unlink()
    _record(run, dict.fromkeys(removed))
