"""The declared models: whether each is there, is what it is to be, and is listed by an instance.

Reads only, and nothing that it finds on disk makes it raise. A look costs a few calls to the system
per model. ComfyUI lists a dangling link and an empty file like any other (measured on 0.3.64), so
what it lists proves nothing about the file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...spec import ModelPin
from ...spec.layout import Layout
from ..system import files
from ..system.stat_cache import while_unchanged
from .store import Store

FIELDS = tuple(ModelPin.model_fields)
_LISTED = frozenset([".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"])
"""Endings that it lists in every folder type of models; custom nodes may add others."""


@dataclass(frozen=True)
class WantedModel:
    """A model as machine.yaml has it: a download from `url`, or a link to `source`."""

    target: str
    url: str | None = None
    sha256: str | None = None
    source: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class ModelState:
    """What became of it; `reason` is a sentence that says "it"."""

    target: str
    ok: bool
    reason: str = ""
    optional: bool = False
    present: bool = False
    """There is a file or folder, not only a name."""
    verified: bool = False
    """A download is the file of its sha256, unchanged since it was hashed. So is a source that has
    a sha256; one that has none is only readable and not empty."""
    size: int | None = None
    """Bytes; None of a folder."""


@dataclass(frozen=True)
class ModelsSummary:
    """All of them together; `ok` when the required ones are."""

    ok: bool
    reason: str
    """The first required one that is wrong."""
    wrong: dict[str, str] = field(default_factory=dict)
    """Target → why, of the optional ones too."""


@dataclass(frozen=True)
class Place:
    """Where the models of a machine are, and what is known of them."""

    layout: Layout
    folder: Path
    store: Path
    pins: Mapping[str, ModelPin]
    """machine.lock's, by target."""


def look(place: Place, models: Sequence[WantedModel]) -> dict[str, ModelState]:
    """The state of each, by target."""
    fetched = _dicts(_read(receipt_of(place.layout)))
    verified = _section(_read(place.layout.state / "links.json"), "verified")
    return {
        model.target: _source(place, model, verified.get(model.source))
        if model.source
        else _download(place, model, fetched.get(model.target, {}))
        for model in models
    }


def summarize(
    states: Mapping[str, ModelState], listing: Mapping[str, Collection[str]] | None = None
) -> ModelsSummary:
    """What is wrong, with what an instance lists (see `listed`) where that is known."""
    wrong = {}
    names = {kind: frozenset(found) for kind, found in (listing or {}).items()}
    for target, state in states.items():
        there = listed(names, target)
        if state.ok and there is False:
            wrong[target] = "the instance doesn't list it"
        elif not state.ok:
            wrong[target] = state.reason + ("; the instance lists it all the same" if there else "")
    required = {target: why for target, why in wrong.items() if not states[target].optional}
    lines = [f"{target}: {why}" for target, why in required.items()]
    others = f", and {len(lines) - 1} more" if len(lines) > 1 else ""
    return ModelsSummary(not lines, lines[0] + others if lines else "", wrong)


def kinds(targets: Iterable[str], paths: Any) -> dict[str, str]:
    """Each folder of targets, with the folder type to ask an instance for, `GET /models/<kind>`.

    `paths` is its answer to `/internal/folder_paths`: it looks into models/unet for
    diffusion_models. Custom nodes add types of the same folders, so the first one counts.
    """
    types: dict[str, str] = {}
    for kind, places in paths.items() if isinstance(paths, dict) else ():
        for place in places if isinstance(places, list) else ():
            types.setdefault(os.path.basename(str(place)), kind)  # noqa: PTH119
        types[kind] = kind
    folders = sorted({folder for folder, _ in map(_split, targets) if folder})
    return {name: types.get(name, name) for name in folders}


def listed(listing: Mapping[str, Collection[str]], target: str) -> bool | None:
    """Whether an instance lists a model; None where its answers, by folder, don't say."""
    folder, name = _split(target)
    if folder not in listing:
        return None
    names = listing[folder]
    if name in names:
        return True
    if os.path.splitext(name)[1].lower() in _LISTED:  # noqa: PTH122
        return False
    return True if any(each.startswith(f"{name}/") for each in names) else None


def _split(target: str) -> tuple[str, str]:
    """Folder and the name in it; a file beside the folders has none."""
    first, _, name = target.partition("/")
    return (first, name) if name else ("", target)


_read = while_unchanged(files.read_receipt)


def noted(layout: Layout) -> dict[str, dict[str, Any]]:
    """What this machine fetched, by target: a pin's fields, and `mtime` when it was verified."""
    return _dicts(files.read_receipt(receipt_of(layout)))


def receipt_of(layout: Layout) -> Path:
    return layout.receipts / "models.json"


def _dicts(receipt: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    section = _section(receipt, "models").items()
    return {target: entry for target, entry in section if isinstance(entry, dict)}


def _section(receipt: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = receipt.get(name)
    return section if isinstance(section, dict) else {}


def pin(
    url: str, sha256: str | None, locked: ModelPin | None, seen: Mapping[str, Any] | None
) -> ModelPin:
    """What machine.yaml says, completed by machine.lock, or by what this machine has seen.

    `sha256` is None when nobody knows it.
    """
    known = locked or (
        ModelPin.model_construct(**{name: seen.get(name) for name in FIELDS}) if seen else None
    )
    if known and known.url == url and sha256 in (None, known.sha256):
        return known
    return ModelPin(url=url, sha256=sha256)


def link_text(folder: str, store: str, target: str, sha256: str) -> str:
    """What the link of a download says: relative where the store lies in the models folder.

    The folder may then be mounted at another place.
    """
    if store.startswith(f"{folder}/"):
        return f"{'../' * target.count('/')}{store[len(folder) + 1 :]}/{sha256}"
    return f"{store}/{sha256}"


def _download(place: Place, model: WantedModel, seen: Mapping[str, Any]) -> ModelState:
    known = pin(model.url or "", model.sha256, place.pins.get(model.target), seen)
    if known.sha256 is None:
        status, _ = _behind(f"{place.folder}/{model.target}", "")
        return _state(model, status, "it was never fetched, so its sha256 isn't known")
    text = link_text(str(place.folder), str(place.store), model.target, known.sha256)
    status, reason = _behind(f"{place.folder}/{model.target}", text)
    if status and not reason:
        reason = _changed(place, known.sha256, known.size, seen, status)
    return _state(model, status, reason)


def _changed(
    place: Place, sha256: str, size: int | None, seen: Mapping[str, Any], status: os.stat_result
) -> str:
    """Why the store's file isn't the one that was verified, empty if it is."""
    now = (status.st_size, int(status.st_mtime))
    then = (seen.get("size"), seen.get("mtime")) if seen.get("sha256") == sha256 else None
    if now == then or Store(place.store).holds(sha256) == now:
        return ""
    whole = then[0] if then else size
    if isinstance(whole, int) and now[0] < whole:
        return f"it is cut short: {now[0]} of {whole} bytes"
    return "it was changed since it was verified" if then else "it was not verified here yet"


def _source(place: Place, model: WantedModel, proof: object) -> ModelState:
    at, source = f"{place.folder}/{model.target}", str(model.source)
    status, reason = _behind(at, source)
    if status is None and not os.path.islink(at):  # noqa: PTH114
        there = os.path.exists(source)  # noqa: PTH110
        reason = "it isn't linked yet" if there else f"{source} isn't there"
    elif status and not reason and model.sha256:
        now = [model.sha256, status.st_size, int(status.st_mtime)]
        reason = "" if proof == now else "it was not verified as it is now"
    return _state(model, status, reason)


def _behind(at: str, text: str) -> tuple[os.stat_result | None, str]:
    """What is behind the name `at`, which is to be a link that says `text`; and what is wrong."""
    link = files.link_target(at)
    try:
        status = os.stat(at)  # noqa: PTH116  for 5,000 models
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            return None, f"it can't be looked at: {error.strerror}"
        if link is None:
            return None, "it isn't there"
        return None, f"the link dangles: {os.path.realpath(at)} isn't there"
    if link is None:
        return status, "it isn't a link: something else is in the way"
    if link != text:
        return status, f"its link points at {link}, not at {text}"
    return status, _unreadable(at, status)


def _unreadable(at: str, status: os.stat_result) -> str:
    if not stat.S_ISDIR(status.st_mode):
        readable = os.access(at, os.R_OK)
        empty = "" if status.st_size else "it is empty (0 bytes)"
        return empty if readable else "it can't be read: its permissions forbid it"
    try:
        with os.scandir(at) as entries:
            return "" if any(entries) else "the folder is empty"
    except OSError as error:
        return f"it can't be read: {error.strerror}"


def _state(model: WantedModel, status: os.stat_result | None, reason: str) -> ModelState:
    is_file = status is not None and stat.S_ISREG(status.st_mode)
    return ModelState(
        target=model.target,
        ok=not reason,
        reason=reason,
        optional=model.optional,
        present=status is not None,
        verified=not reason,
        size=status.st_size if status and is_file else None,
    )
