"""Which generations are kept for a rollback, with their environments and sources."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from ...spec import PythonSet
from ...spec.layout import Layout
from ..pm2 import apps
from ..python import altered_files, environments
from ..storage import digest_folders
from ..storage.disk_space import free
from ..system import files
from . import found_damage

REMEMBERED = 10
"""The fewest names of good generations to record, even without their folders: a volume outlives
the image that the folders are part of."""


def in_use(layout: Layout) -> frozenset[str]:
    """The current generation, and those that are some process's working directory."""
    return frozenset({layout.generation.name, *apps.folders_in_use(layout.generations)})


def good(layout: Layout) -> list[str]:
    """Generations on which all instances were healthy, newest last."""
    return list(files.read_receipt(_list(layout), generations=list).get("generations", ()))


def numbers(layout: Layout) -> dict[str, int]:
    """Good generation → its number, which it keeps: later ones have higher numbers."""
    return _numbered(files.read_receipt(_list(layout), generations=list))


def remember(layout: Layout, name: str, number: int) -> None:
    """Record a generation as the newest good one; `number` is how many are kept."""
    record = files.read_receipt(_list(layout), generations=list)
    names = [*(each for each in good(layout) if each != name), name][-max(number, REMEMBERED) :]
    numbered = _numbered({**record, "generations": [*good(layout), name]})
    kept_numbers = {each: numbered[each] for each in names}
    last = max(numbered.values())
    files.write_receipt(
        _list(layout), {"generations": names, "numbers": kept_numbers, "last": last}
    )


def _numbered(record: dict[str, Any]) -> dict[str, int]:
    """The numbers of a record; those of generations that an older version recorded follow from
    their order. A number is never given twice."""
    given = record.get("numbers")
    pairs = given.items() if isinstance(given, dict) else ()
    found = {name: number for name, number in pairs if isinstance(number, int)}
    last = record.get("last")
    last = max([last if isinstance(last, int) else 0, *found.values()])
    for name in record.get("generations", ()):
        if name not in found:
            last += 1
            found[name] = last
    return found


def good_and_there(layout: Layout) -> list[str]:
    """The good generations that still exist undamaged, newest last."""
    existing = {path.name: path for path in digest_folders.list_folders(layout.generations)}
    return [name for name in good(layout) if name in existing and is_intact(existing[name])]


def is_intact(folder: Path) -> bool:
    """Whether no check of all files found damage in a generation or its environment."""
    return not found_damage.read(folder) and not altered_files.spoilt(
        files.real(folder / "environment")
    )


def settled(layout: Layout) -> Iterator[PythonSet]:
    """The packages of good generations that still exist, newest first."""
    for name in reversed(good_and_there(layout)):
        if python := environments.noted(layout.good(name) / layout.packages.name):
            yield python


def kept(layout: Layout, number: int) -> set[str]:
    """The generations in use, and the `number` newest good ones."""
    return {*in_use(layout), *good_and_there(layout)[-number:]}


def of_generations(generations: Iterable[Path]) -> frozenset[str]:
    """The environments that these generations link to."""
    return frozenset(files.real(folder / "environment").name for folder in generations)


def unneeded(layout: Layout, keep: Collection[str]) -> list[Path]:
    """The generations except `keep`, and the environments and checkouts that neither those nor an
    unfinished build need."""
    generations = digest_folders.list_folders(layout.generations)
    staying = [path for path in generations if path.name in keep]
    # An unfinished build may have made an environment that no generation has yet.
    newest = files.read_receipt(layout.receipts / "environment.json").get("folder")
    homes = {*of_generations(staying), str(newest)}
    sources = {*_of_receipts(layout), *(each for path in staying for each in _heads(path))}
    checkouts = digest_folders.list_folders(layout.sources)
    return [
        *(path for path in generations if path.name not in keep),
        *(path for path in digest_folders.list_folders(layout.environments)
          if path.name not in homes),
        *(path for path in checkouts if path.name.removesuffix("+submodules") not in sources),
    ]  # fmt: skip


def make_room(layout: Layout, need: int) -> list[str]:
    """Remove what nothing needs, then the oldest good generations, until `need` bytes are free.

    Generations in use and the last good one stay. Returns the removed generations. Raises OSError.
    """
    removed: list[str] = []
    for paths in _in_turn(layout):
        if free(layout.machine) >= need:
            break
        for path in paths:
            digest_folders.remove(path)
        removed += [path.name for path in paths if path.parent == layout.generations]
    return removed


def _in_turn(layout: Layout) -> Iterator[list[Path]]:
    """What to remove, in steps: garbage, then what was never good, then the oldest good ones."""
    yield sorted(layout.garbage.iterdir()) if layout.garbage.is_dir() else []
    staying = good_and_there(layout)
    yield unneeded(layout, {*in_use(layout), *staying})
    while len(staying) > 1:
        del staying[0]
        yield unneeded(layout, {*in_use(layout), *staying})


def _list(layout: Layout) -> Path:
    return layout.state / "healthy.json"


def _of_receipts(layout: Layout) -> Iterator[str]:
    """The checkouts in the receipts of the sources."""
    for receipt in (layout.receipts / "source.json", *layout.receipts.glob("nodes/*.json")):
        name = "ComfyUI" if receipt.stem == "source" else receipt.stem
        yield f"{name}@{files.read_receipt(receipt).get('commit')}"


def _heads(generation: Path) -> Iterator[str]:
    """The checkouts that a generation was made from."""
    for place, commit in digest_folders.read(generation, heads=dict).get("heads", {}).items():
        yield f"{Path(place).name}@{commit}"
