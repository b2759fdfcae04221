"""The last good generation: record what is healthy, go back from what isn't, don't try it again.

`state/good/<generation>` holds what instances run with on a good generation. While
`state/refused.json` applies, they run with that, whatever machine.yaml asks for.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.run import Run
from ..host.generations import kept_generations
from ..host.generations.kept_generations import good, remember
from ..host.pm2 import apps
from ..host.storage import access
from ..host.system import files
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..spec import Instance, Machine
from ..spec.layout import Layout
from . import stage as generation

if TYPE_CHECKING:
    from pydantic import BaseModel
IRRELEVANT = ("lock", "lock_damage", "enabled", "retention", "registry")
"""Parts of a machine that make no other request."""
LATER = {"": ("machine_id", "jobs"), "instances": ("drain_settle", "user")}
LATER_OF_ROOTS = ("folders",)
LATER_OF_NODES = ("id", "version")
LATER_OF_WORKERS = ("cwd", "per", "restart_with_instance", "stop_timeout", "health")
"""Fields that came later. With their defaults they make no other request either: a new version
must not end a refusal."""
KEY_LENGTH = 64
"""Hex digits of a workspace's key."""
_making_the_key = threading.Lock()


@dataclass(frozen=True)
class Refusal:
    """Why the machine isn't what machine.yaml says; stored in `state/refused.json`."""

    wish: str
    """The refused request (`_request_digest`); any other request ends the refusal."""
    generation: str
    reason: str
    """One line, for tables and logs."""
    back_on: str
    by_hand: bool
    at: float
    """Seconds since the epoch."""
    passed: list[str] = field(default_factory=list)
    """Generations that `doit rollback` left; a further rollback skips them."""
    number: int = 0
    """Of `back_on`, as `doit generations` shows it; 0: an older version wrote this."""

    @property
    def back(self) -> str:
        """The generation that runs, as people know it."""
        return f"generation {self.number or self.back_on}"

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.at))
        how = "left by hand" if self.by_hand else f"refused: {self.reason}"
        if self.generation == self.back_on:
            return f"what machine.yaml asks for was {how}; since {when} the machine runs as before"
        return f"what machine.yaml asks for was {how}; since {when} {self.back} runs instead"


def refusal(run: Run) -> Refusal | None:
    """The refusal that applies now; None without one, or when the request changed."""
    if run.force:
        return None
    try:
        recorded = Refusal(**files.read_receipt(run.layout.refused))
        applies = recorded.wish == _request_digest(run) and is_whole(run.layout, recorded.back_on)
        return recorded if applies else None
    except (TypeError, Failure):
        return None


def folder_of(run: Run) -> Path:
    """The generation that instances start on. Raises Failure without one."""
    if applying := refusal(run):
        return run.layout.generations / applying.back_on
    return generation.folder_of(run)


def apps_of(run: Run, gpu: int) -> list[dict[str, Any]]:
    """The apps in the PM2 config that a GPU's apps start with; empty without one."""
    config = run.layout.rendered(gpu)
    if applying := refusal(run):
        config = run.layout.good(applying.back_on) / config.name
    receipt = files.read_receipt(run.layout.read_path(config), apps=list)
    return list(receipt.get("apps", ()))


def wanted_fingerprints(run: Run, instances: Sequence[Instance]) -> dict[str, str]:
    """App that should run for these instances → its fingerprint."""
    return {
        app["name"]: app["env"][apps.FINGERPRINT]
        for instance in instances
        for app in apps_of(run, instance.gpu)
    }


def fallback(run: Run) -> str | None:
    """The generation to go back to when the requested one doesn't become healthy, if any."""
    layout = run.layout
    newest = next(reversed(good(layout)), "")
    if refusal(run) or not is_whole(layout, newest):
        return None
    return newest if _configs(layout.apps) != _configs(layout.good(newest)) else None


def refuse(run: Run, reason: str) -> Refusal | None:
    """Refuse what machine.yaml asks for, and point back; None without a fallback."""
    name = fallback(run)
    return _point_back(run, name, reason) if name else None


@dataclass(frozen=True)
class WayBack:
    """A good generation to go back to, and those that a further `doit rollback` is to skip."""

    name: str
    passed: list[str]


def way_back(run: Run, number: int | None = None) -> WayBack:
    """The good generation of this number, else the next older one, one further each time.

    Raises Failure where there is none.
    """
    layout, applying = run.layout, refusal(run)
    current = layout.generation.name
    if number is None:
        passed = [*(applying.passed if applying else ()), current]
        others = [n for n in good(layout) if n not in passed and is_whole(layout, n)]
        if not others:
            forward = f"; {applying}; {PROGRAM} force=1 goes forward again" if applying else ""
            raise Failure(f"no good generation to go back to{forward}")
        return WayBack(others[-1], passed)
    numbers = kept_generations.numbers(layout)
    name = next((name for name, its in numbers.items() if its == number), "")
    if not is_whole(layout, name):
        there = sorted(its for name, its in numbers.items() if is_whole(layout, name))
        known = f"known: {', '.join(map(str, there))}" if there else "there is none yet"
        raise Failure(f"no generation {number} to go back to ({known}): see {PROGRAM} generations")
    if name == current:
        raise Failure(f"generation {number} is the current one already")
    if applying and name == applying.generation:
        raise Failure(f"generation {number} is what machine.yaml asks for: {PROGRAM} force=1")
    # Newer ones are passed too: without a number the next one is older still.
    newer = [each for each in good(layout) if numbers[each] > number]
    return WayBack(name, newer if current in numbers else [*newer, current])


def roll_back(run: Run, way: WayBack) -> None:
    """Point `current` back, until the request changes."""
    _point_back(run, way.name, f"{PROGRAM} rollback", passed=way.passed, by_hand=True)


def _point_back(
    run: Run, name: str, reason: str, *, passed: Sequence[str] = (), by_hand: bool = False
) -> Refusal:
    """Point `current` at a good generation."""
    layout = run.layout
    refused = Refusal(
        wish=_request_digest(run),
        generation=generation.folder_of(run).name,
        reason=" ".join(reason.split()),
        back_on=name,
        by_hand=by_hand,
        at=time.time(),
        passed=[*passed],
        number=kept_generations.numbers(layout).get(name, 0),
    )
    # The link first: after a kill in between, the next run tries again.
    target = os.path.relpath(layout.generations / name, layout.state)
    files.point(layout.current, target, access.ADVICE)
    files.write_receipt(layout.refused, asdict(refused))
    remember(layout, name, run.machine.retention.generations)
    return refused


def _request_digest(run: Run) -> str:
    request = run.machine.model_dump_json(exclude=_irrelevant(run.machine))
    used = {name: run.machine.env.get(name) for name in re.findall(r"\$\{(\w+)", request)}
    text = json.dumps([request, used, generation.folder_of(run).name], sort_keys=True)
    lock = files.file_digest(run.machine.lock_file)
    return keyed_hash(run.layout, f"{lock}{text}")[:16]


def _irrelevant(machine: Machine) -> dict[str, Any]:
    """What to exclude from the request, as pydantic has it."""

    def defaults(part: BaseModel, names: Sequence[str]) -> set[str]:
        fields = type(part).model_fields
        return {name for name in names if getattr(part, name) == fields[name].default}

    return {
        **dict.fromkeys([*IRRELEVANT, *defaults(machine, LATER[""])], True),
        "instances": defaults(machine.instances, LATER["instances"]),
        "models": {
            "extra_roots": {
                number: defaults(root, LATER_OF_ROOTS)
                for number, root in enumerate(machine.models.extra_roots)
            }
        },
        "custom_nodes": {
            number: defaults(node, LATER_OF_NODES)
            for number, node in enumerate(machine.custom_nodes)
        },
        "workers": {
            number: defaults(worker, LATER_OF_WORKERS)
            for number, worker in enumerate(machine.workers)
        },
    }


def keyed_hash(layout: Layout, text: str) -> str:
    """HMAC-SHA256 in hex with a key of this workspace: allows to compare secrets, not to guess."""
    return hmac.new(_key(layout), text.encode(), hashlib.sha256).hexdigest()


def _key(layout: Layout) -> bytes:
    """The key; made where there is none, or one that a power cut emptied. Raises OSError."""
    file = layout.state / "fingerprint.key"
    # Tasks run in threads: the second of two new keys would belong to no digest of the first.
    with _making_the_key:
        with contextlib.suppress(FileNotFoundError):
            if len(key := files.read_bytes(layout.read_path(file))) >= KEY_LENGTH:
                return key
        text = secrets.token_hex(KEY_LENGTH // 2)
        files.write_text(layout.write_path(file), text, mode=0o600)
        return text.encode()


def _configs(folder: Path) -> dict[str, bytes]:
    """The PM2 configs in a folder: file name → content."""
    return {path.name: path.read_bytes() for path in folder.glob("gpu*.config.json")}


def is_whole(layout: Layout, name: str) -> bool:
    """Whether instances can go back to a generation."""
    folder = layout.generations / name
    is_there = bool(name) and (folder / "ComfyUI").is_dir() and kept_generations.is_intact(folder)
    return is_there and bool(_configs(layout.good(name)))


def reason_to_record(run: Run) -> str | None:
    """Why what runs isn't recorded as good, or the refusal; None: it is recorded."""
    layout = run.layout
    if applying := refusal(run):
        return str(applying)
    if not run.instances:
        return None
    current = layout.generation.name
    if good(layout)[-1:] != [current]:
        return "the current generation isn't recorded as good yet"
    rendered = {
        layout.rendered(i.gpu).name: layout.read_path(layout.rendered(i.gpu)).read_bytes()
        for i in run.instances
    }
    if rendered != _configs(layout.good(current)):
        return "the configs of the instances aren't recorded as good yet"
    recorded = files.file_digest(layout.good(current) / layout.packages.name)
    if files.file_digest(layout.read_path(layout.packages)) != recorded:
        return "the packages of the current generation aren't recorded yet"
    return "the refusal is over" if layout.refused.exists() else None


def forgive(run: Run) -> bool:
    """End a refusal, unless a person went back by hand; return whether there was one."""
    applying = refusal(run)
    if applying is None or applying.by_hand:
        return False
    files.remove(run.layout.refused)
    return True


def raise_if_refused(run: Run) -> None:
    """Raises Failure while a refusal applies."""
    if applying := refusal(run):
        raise Failure(f"{applying}; correct machine.yaml, or try again: {PROGRAM} force=1")


def record_good(run: Run) -> None:
    """Record what instances run with as good. Raises Failure while a refusal applies."""
    layout = run.layout
    raise_if_refused(run)
    if reason_to_record(run) is None:
        return
    current = layout.generation.name
    folder = layout.good(current)
    kept = {path.name: path for path in (layout.rendered(each.gpu) for each in run.instances)}
    for name in _configs(folder).keys() - kept:
        files.remove(folder / name)
    for path in (*kept.values(), layout.packages):
        files.write_text(folder / path.name, path.read_text())
    remember(layout, current, run.machine.retention.generations)
    files.remove(layout.refused)


def remove_unused(layout: Layout) -> None:
    """Remove the records and secrets of generations that no longer exist.

    `state` may be a volume with records of other images' generations.
    """
    for folder in layout.state.glob("good/*"):
        if folder.name != layout.generation.name and not is_whole(layout, folder.name):
            files.remove(folder)
    folders = (layout.apps, *layout.state.glob("good/*"))
    configs = b"".join(content for folder in folders for content in _configs(folder).values())
    for path in layout.secrets.glob("*.json"):
        # Our services remove their own.
        is_own = path.name.startswith(tuple(f"{name}-" for name in apps.OURS))
        if str(path).encode() not in configs and not is_own:
            files.remove(path)
