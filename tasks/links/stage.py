"""Links to models that lie on disks and volumes, and extra_model_paths.yaml."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..engine.run import Run
from ..engine.step import Task, group, step
from ..host.downloads.store import hash_file, stamp
from ..host.system import files
from ..host.system.failure import Failure
from ..host.system.progress import Progress
from ..models import placement
from ..spec import ModelFile, problem_at
from . import folder_types, own_models


def tasks(run: Run) -> Iterator[Task]:
    yield group("links", "Models: ComfyUI's own files, links to volumes, extra model paths")
    yield own_models.task(run)
    yield from folder_types.tasks(run)
    yield step(
        run,
        "links:prune",
        "Links to models that left machine.yaml are removed",
        check=partial(_unwanted, run),
        action=partial(_prune, run),
        after=["directories", "models"],
    )
    yield step(
        run,
        "links:files",
        "Models that lie on a disk already, linked",
        check=partial(_wrong, run),
        action=partial(_link, run),
        foresee=partial(_foresee, run),
        after=["directories", "links:prune"],
    )


def swaps(run: Run) -> dict[str, str | None]:
    """Links to folders that are to point elsewhere, or to go (None), by place.

    ComfyUI answers 500 once a folder that it has listed is gone, so no instance may run then.
    """
    made, wanted = _made(run), _wanted(run)
    found: dict[str, str | None] = {}
    for place, text in {**made, **wanted}.items():
        if place not in made and not os.path.islink(place):  # noqa: PTH114  for 5,000 models
            continue
        now = files.link_target(Path(place))
        if now is not None and now != wanted.get(place) and Path(place).is_dir():
            ours = now == text or place in wanted
            if ours and place not in _declared(run) - set(wanted):
                found[place] = wanted.get(place)
    return found


def swap(run: Run) -> None:
    """Change those links; the caller has stopped the instances."""
    for place, text in swaps(run).items():
        placement.refuse_read_only(run, f"the link {place}", Path(place).parent)
        _note(run, {place: text})
        if text is None:
            Path(place).unlink()
        else:
            files.point(Path(place), text)


def _sources(run: Run) -> list[ModelFile]:
    return [file for file in run.machine.models.files if file.source]


def _wanted(run: Run) -> dict[str, str]:
    """Place → source of all that is to be linked."""
    folder = run.machine.models.folder
    return {f"{folder}/{file.target}": str(file.source) for file in _sources(run)}


def _declared(run: Run) -> set[str]:
    return {f"{run.machine.models.folder}/{file.target}" for file in run.machine.models.files}


def _wrong(run: Run) -> str | None:
    made, verified, swapped = _made(run), _verified(run), swaps(run)
    for file in _sources(run):
        if why := _wrong_one(run, file, made, verified, swapped):
            return why
    return None


def _wrong_one(
    run: Run,
    file: ModelFile,
    made: dict[str, str],
    verified: dict[str, Any],
    swapped: dict[str, str | None],
) -> str | None:
    place, wanted = f"{run.machine.models.folder}/{file.target}", str(file.source)
    now = stamp(wanted)
    if now is None:
        return f"{wanted} isn't there"
    if place in swapped:
        return None
    if files.link_target(place) != wanted:
        return f"{place} doesn't point at {wanted}"
    if made.get(place) != wanted:
        return f"{place} isn't in the list of our links"
    if file.sha256 and verified.get(wanted) != [file.sha256, *now]:
        return f"{wanted} was not verified as it is now"
    return None


def _link(run: Run, log: Path) -> None:
    """Link all that can be linked. Raises Failure with a line for each that can't."""
    made, verified, swapped = _made(run), _verified(run), swaps(run)
    problems = []
    wrong = [f for f in _sources(run) if _wrong_one(run, f, made, verified, swapped)]
    for file in wrong:
        try:
            _verify(run, file, verified)
            _make_room(run, file)
        except (Failure, OSError) as error:
            if file.optional:
                run.warn(f"model {file.target} (optional) isn't there: {error}")
            else:
                problems.append(_at(run, file, str(error)))
        else:
            made[str(placement.place(run, file.target))] = str(file.source)
    _write(run, made, verified)
    for file in wrong:
        place = placement.place(run, file.target)
        if made.get(str(place)) == str(file.source) and str(place) not in swapped:
            placement.link(run, file.target, str(file.source))
    if problems:
        raise Failure("\n    ".join(problems))


def _foresee(run: Run, log: Path) -> list[str]:
    made, verified, swapped = _made(run), _verified(run), swaps(run)
    wrong = [f for f in _sources(run) if _wrong_one(run, f, made, verified, swapped)]
    missing = []
    for file in wrong:
        try:
            _refuse_missing(file)
        except Failure as failure:
            missing += [] if file.optional else [_at(run, file, str(failure))]
    if missing:
        raise Failure("\n    ".join(missing))
    return [f"link {file.target} to {file.source}" for file in wrong]


def _at(run: Run, file: ModelFile, message: str) -> str:
    """What is wrong with a model, with its place in machine.yaml."""
    number = run.machine.models.files.index(file)
    return str(problem_at(run.machine.file, ("models", "files", number, "source"), message))


def held(run: Run) -> list[ModelFile]:
    """The sources that are held to a sha256."""
    return [file for file in _sources(run) if file.sha256]


def sound(run: Run, progress: Progress, file: ModelFile) -> str | None:
    """Hash a source anew; None, or what is wrong with it."""
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


def _refuse_missing(file: ModelFile) -> Path:
    at = Path(str(file.source))
    if stamp(at) is None:
        what = "is a link to nothing" if at.is_symlink() else "isn't there"
        raise Failure(f"the source of {file.target} {what}: {at}; mount it or correct source")
    return at


def _verify(run: Run, file: ModelFile, verified: dict[str, Any]) -> None:
    """Hold a source to its sha256, once for each size and time. Raises Failure, OSError."""
    at = _refuse_missing(file)
    place = Path(os.path.realpath(run.machine.models.folder), file.target)
    if Path(os.path.realpath(at)) == place:
        raise Failure(f"the source of {file.target} is, through a link, the target itself: {at}")
    if file.sha256 is None:
        return
    if at.is_dir():
        raise Failure(f"{file.target}: sha256 has no meaning for a folder: remove it")
    now = stamp(at)
    if now and verified.get(str(at)) != [file.sha256, *now]:
        found = hash_file(at, Progress("links"), file.target)
        if found != file.sha256:
            raise Failure(
                f"the source of {file.target} has sha256 {found}, not {file.sha256}: replace "
                f"{at}, or correct sha256"
            )
        verified[str(at)] = [file.sha256, *now]


def _make_room(run: Run, file: ModelFile) -> None:
    """Remove a copy of the source from where the link belongs. Raises Failure for anything else."""
    placement.refuse_climbing(run, file.target)
    at = placement.in_the_way(run, file.target)
    if at is None:
        return
    original = Path(str(file.source))
    counts = Progress("links")
    same = original.is_file() and original.stat().st_size == at.stat().st_size
    if not same or hash_file(at, counts, "at") != hash_file(original, counts, "original"):
        raise Failure(f"{at} is in the way: move it aside, a link to {original} belongs there")
    at.unlink()
    run.tell(f"{at} was a copy of {original}: it is a link now")


def _list(run: Run) -> Path:
    """The list of links that we made, place → source; what is not in it is never removed."""
    return run.layout.state / "links.json"


def _made(run: Run) -> dict[str, str]:
    links: dict[str, str] = files.read_receipt(_list(run), links=dict).get("links", {})
    return links


def _verified(run: Run) -> dict[str, Any]:
    """Source → its sha256, size and time when it was verified."""
    verified: dict[str, Any] = files.read_receipt(_list(run)).get("verified", {})
    return verified


def _write(run: Run, links: dict[str, str], verified: dict[str, Any]) -> None:
    wanted = {str(file.source) for file in _sources(run)}
    kept = {at: value for at, value in verified.items() if at in wanted}
    files.write_receipt(_list(run), {"links": links, "verified": kept})


def _note(run: Run, changes: dict[str, str | None]) -> None:
    links = {**_made(run), **changes}
    kept = {place: text for place, text in links.items() if text is not None}
    _write(run, kept, _verified(run))


def _gone(run: Run) -> list[str]:
    """Places of links that left machine.yaml, or became downloads; listed folders come later."""
    inside = f"{run.machine.models.folder}/"
    wanted, later = _wanted(run), swaps(run)
    return sorted(p for p in _made(run) if p.startswith(inside) and p not in {*wanted, *later})


def _unwanted(run: Run) -> str | None:
    gone = _gone(run)
    return f"{', '.join(gone)} left machine.yaml" if gone else None


def _prune(run: Run, log: Path) -> None:
    made, declared, gone = _made(run), _declared(run), _gone(run)
    for place in gone:
        # Still as we made it; folders stay, instances may have listed them.
        if place not in declared and files.link_target(place) == made[place]:
            placement.refuse_read_only(run, f"removing {place}", Path(place).parent)
            Path(place).unlink()
    _note(run, dict.fromkeys(gone))
