"""The declared models: whether each is there, is what it is to be, and is listed by an instance.

This only reads, never raises for what is on disk, and takes a few system calls per model. ComfyUI
lists dangling links and empty files like any other (seen in 0.3.64), so its lists prove nothing
about a file.
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
"""Endings that ComfyUI lists in every model folder; custom nodes may add others."""


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
    """The state of a model; `reason` is a sentence about "it"."""

    target: str
    ok: bool
    reason: str = ""
    optional: bool = False
    present: bool = False
    """Whether there is a file or folder, not only a link."""
    verified: bool = False
    """Whether the file has its sha256 and is unchanged since it was hashed. A source without a
    sha256 need only be readable and not empty."""
    size: int | None = None
    """Bytes; None for a folder."""


@dataclass(frozen=True)
class ModelsSummary:
    """All models together; `ok`: the required ones are."""

    ok: bool
    reason: str
    """The first required model that is wrong."""
    wrong: dict[str, str] = field(default_factory=dict)
    """Target → why, optional models included."""


@dataclass(frozen=True)
class Place:
    """Where a machine's models are, and their pins."""

    layout: Layout
    folder: Path
    store: Path
    pins: Mapping[str, ModelPin]
    """machine.lock's, by target."""


def look(place: Place, models: Sequence[WantedModel]) -> dict[str, ModelState]:
    """Target → state."""
    fetched = _entries(_read(receipt_of(place.layout)))
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
    """What is wrong; also with what an instance lists (see `listed`), if `listing` is given."""
    wrong = {}
    names = {kind: frozenset(found) for kind, found in (listing or {}).items()}
    for target, state in states.items():
        is_listed = listed(names, target)
        if state.ok and is_listed is False:
            wrong[target] = "the instance doesn't list it"
        elif not state.ok:
            wrong[target] = state.reason + (
                "; the instance lists it all the same" if is_listed else ""
            )
    required = {target: why for target, why in wrong.items() if not states[target].optional}
    lines = [f"{target}: {why}" for target, why in required.items()]
    others = f", and {len(lines) - 1} more" if len(lines) > 1 else ""
    return ModelsSummary(not lines, lines[0] + others if lines else "", wrong)


def optional(states: Mapping[str, ModelState]) -> frozenset[str]:
    """The targets of the optional ones."""
    return frozenset(target for target, state in states.items() if state.optional)


def unlisted(states: Mapping[str, ModelState], listing: Mapping[str, Collection[str]]) -> list[str]:
    """The models that are as they should be and that an instance doesn't list (see `listed`)."""
    names = {kind: frozenset(found) for kind, found in listing.items()}
    return [each for each, state in states.items() if state.ok and listed(names, each) is False]


def kinds(targets: Iterable[str], paths: Any) -> dict[str, str]:
    """Folder of the targets → folder type to request from an instance, `GET /models/<kind>`.

    They differ: diffusion_models also searches models/unet. `paths` is the instance's answer to
    `/internal/folder_paths`. Custom nodes add types for the same folders, so the first one counts.
    """
    types: dict[str, str] = {}
    for kind, places in paths.items() if isinstance(paths, dict) else ():
        for place in places if isinstance(places, list) else ():
            types.setdefault(os.path.basename(str(place)), kind)  # noqa: PTH119
        types[kind] = kind
    folders = sorted({folder for folder, _ in map(_split, targets) if folder})
    return {name: types.get(name, name) for name in folders}


def listed(listing: Mapping[str, Collection[str]], target: str) -> bool | None:
    """Whether an instance lists a model; None: its lists, by folder, don't tell."""
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
    """Folder and name in it; the folder is empty for a file that is in none."""
    first, _, name = target.partition("/")
    return (first, name) if name else ("", target)


_read = while_unchanged(files.read_receipt)


def noted(layout: Layout) -> dict[str, dict[str, Any]]:
    """Target that this machine fetched → a pin's fields, and `mtime` (s) when it was verified."""
    return _entries(files.read_receipt(receipt_of(layout)))


def receipt_of(layout: Layout) -> Path:
    return layout.receipts / "models.json"


def _entries(receipt: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    section = _section(receipt, "models").items()
    return {target: entry for target, entry in section if isinstance(entry, dict)}


def _section(receipt: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = receipt.get(name)
    return section if isinstance(section, dict) else {}


def pin(
    url: str, sha256: str | None, locked: ModelPin | None, record: Mapping[str, Any] | None
) -> ModelPin:
    """machine.yaml's entry, completed by machine.lock or by this machine's `record`.

    `sha256` is None if it isn't known.
    """
    pinned = locked or (
        ModelPin.model_construct(**{name: record.get(name) for name in FIELDS}) if record else None
    )
    if pinned and pinned.url == url and sha256 in (None, pinned.sha256):
        return pinned
    return ModelPin(url=url, sha256=sha256)


def link_text(folder: str, store: str, target: str, sha256: str) -> str:
    """The text of a download's link: relative if the store lies in the models folder.

    The folder can then be mounted at another path.
    """
    if store.startswith(f"{folder}/"):
        return f"{'../' * target.count('/')}{store[len(folder) + 1 :]}/{sha256}"
    return f"{store}/{sha256}"


def _download(place: Place, model: WantedModel, record: Mapping[str, Any]) -> ModelState:
    pinned = pin(model.url or "", model.sha256, place.pins.get(model.target), record)
    if pinned.sha256 is None:
        status, _ = _behind(f"{place.folder}/{model.target}", "")
        why = "it was never fetched" if status is None else "the lock doesn't have it"
        return _state(model, status, f"its sha256 isn't known: {why}")
    text = link_text(str(place.folder), str(place.store), model.target, pinned.sha256)
    status, reason = _behind(f"{place.folder}/{model.target}", text)
    if status and not reason:
        reason = _changed(place, pinned.sha256, pinned.size, record, status)
    return _state(model, status, reason)


def _changed(
    place: Place, sha256: str, size: int | None, record: Mapping[str, Any], status: os.stat_result
) -> str:
    """Why the store's file isn't the verified one; empty if it is."""
    now = (status.st_size, int(status.st_mtime))
    then = (record.get("size"), record.get("mtime")) if record.get("sha256") == sha256 else None
    if now == then or Store(place.store).holds(sha256) == now:
        return ""
    whole = then[0] if then else size
    if isinstance(whole, int) and now[0] < whole:
        return f"it is truncated: {now[0]} of {whole} bytes"
    return "it was changed since it was verified" if then else "it was not verified here yet"


def _source(place: Place, model: WantedModel, proof: object) -> ModelState:
    at, source = f"{place.folder}/{model.target}", str(model.source)
    status, reason = _behind(at, source)
    if status is None and not os.path.islink(at):  # noqa: PTH114
        exists = os.path.exists(source)  # noqa: PTH110
        reason = "it isn't linked yet" if exists else f"{source} isn't there"
    elif status and not reason and model.sha256:
        now = [model.sha256, status.st_size, int(status.st_mtime)]
        reason = "" if proof == now else "it was not verified as it is now"
    return _state(model, status, reason)


def _behind(at: str, text: str) -> tuple[os.stat_result | None, str]:
    """The stat of `at`, which should be a link with this text, and what is wrong."""
    link = files.link_target(at)
    try:
        status = os.stat(at)  # noqa: PTH116  for 5,000 models
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            return None, f"it can't be read: {error.strerror}"
        if link is None:
            return None, "it isn't there"
        return None, f"the link dangles: {os.path.realpath(at)} isn't there"
    if link is None:
        return status, "it isn't a link, but a file or folder"
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
