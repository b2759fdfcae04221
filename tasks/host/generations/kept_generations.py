"""Which generations are kept to go back to, with their environments and sources."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from ...spec import PythonSet
from ...spec.layout import Layout
from ..pm2 import apps
from ..python import environments
from ..storage import digest_folders
from ..storage.disk_space import free
from ..system import files

REMEMBERED = 10
"""Names of good generations at least, whether or not their folders are still there: a volume
outlives the image that they came in."""


def in_use(layout: Layout) -> frozenset[str]:
    """The generations that are current or in which some process works."""
    return frozenset({layout.current.resolve().name, *apps.folders_in_use(layout.generations)})


def good(layout: Layout) -> list[str]:
    """Generations on which all instances were healthy, newest last."""
    found: list[str] = files.read_receipt(_list(layout), generations=list).get("generations", [])
    return found


def remember(layout: Layout, name: str, number: int) -> None:
    """Note a generation as the newest good one; `number` of them are to be kept."""
    names = [*(each for each in good(layout) if each != name), name]
    files.write_receipt(_list(layout), {"generations": names[-max(number, REMEMBERED) :]})


def good_and_there(layout: Layout) -> list[str]:
    """Those of them that were not removed, newest last."""
    there = {path.name for path in digest_folders.list_folders(layout.generations)}
    return [name for name in good(layout) if name in there]


def settled(layout: Layout) -> Iterator[PythonSet]:
    """The packages of good generations that are still there, the newest first."""
    for name in reversed(good_and_there(layout)):
        if found := environments.noted(layout.good(name) / layout.packages.name):
            yield found


def kept(layout: Layout, number: int) -> set[str]:
    """What runs, what is current, and the `number` newest good ones."""
    return {*in_use(layout), *good_and_there(layout)[-number:]}


def of_generations(generations: Iterable[Path]) -> frozenset[str]:
    """The environments that these generations link to."""
    return frozenset((folder / "environment").resolve().name for folder in generations)


def unneeded(layout: Layout, keep: Collection[str]) -> list[Path]:
    """Generations but those, and what is neither theirs nor of what is being made: environments,
    checkouts."""
    there = digest_folders.list_folders(layout.generations)
    staying = [path for path in there if path.name in keep]
    environments = {*of_generations(staying), *_pointed(layout)}
    sources = {*_of_receipts(layout), *(each for path in staying for each in _heads(path))}
    return [
        *(path for path in there if path.name not in keep),
        *(
            p
            for p in digest_folders.list_folders(layout.environments)
            if p.name not in environments
        ),
        *(
            path
            for path in digest_folders.list_folders(layout.sources)
            if path.name.removesuffix("+submodules") not in sources
        ),
    ]


def make_room(layout: Layout, need: int) -> list[str]:
    """Remove what nothing needs, then the oldest good generations, until `need` bytes are free.

    What runs, what is current and the last good one stay. The generations that went are returned.
    Raises OSError.
    """
    gone: list[str] = []
    for paths in _in_turn(layout):
        if free(layout.machine) >= need:
            break
        for path in paths:
            digest_folders.remove(path)
        gone += [path.name for path in paths if path.parent == layout.generations]
    return gone


def _in_turn(layout: Layout) -> Iterator[list[Path]]:
    """What may go, step by step: what is being deleted, what was never good, the oldest good."""
    yield sorted(layout.garbage.iterdir()) if layout.garbage.is_dir() else []
    staying = good_and_there(layout)
    yield unneeded(layout, {*in_use(layout), *staying})
    while len(staying) > 1:
        del staying[0]
        yield unneeded(layout, {*in_use(layout), *staying})


def _list(layout: Layout) -> Path:
    return layout.state / "healthy.json"


def _pointed(layout: Layout) -> Iterator[str]:
    """The environment that a step made or chose, which no generation may have yet."""
    yield str(files.read_receipt(layout.receipts / "environment.json").get("folder"))


def _of_receipts(layout: Layout) -> Iterator[str]:
    """The checkouts that the machine is made of now."""
    for receipt in (layout.receipts / "source.json", *layout.receipts.glob("nodes/*.json")):
        name = "ComfyUI" if receipt.stem == "source" else receipt.stem
        yield f"{name}@{files.read_receipt(receipt).get('commit')}"


def _heads(generation: Path) -> Iterator[str]:
    """The checkouts that a generation was copied from."""
    for place, commit in digest_folders.read(generation, heads=dict).get("heads", {}).items():
        yield f"{Path(place).name}@{commit}"
