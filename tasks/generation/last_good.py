"""The last good generation: record what is healthy, go back from what isn't, don't try it again.

`state/good/<generation>` holds what instances run with on a good generation. While
`state/refused.json` applies, they run with that, whatever machine.yaml asks for.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..engine.run import Run
from ..host.generations.kept_generations import good, remember
from ..host.pm2 import apps
from ..host.system import files
from ..host.system.failure import Failure
from ..spec import Instance
from ..spec.layout import Layout
from . import stage as generation


@dataclass(frozen=True)
class Refusal:
    """Why the machine isn't what machine.yaml says; stored in `state/refused.json`."""

    wish: str
    """The refused request (`_request_digest`); any other request ends the refusal."""
    generation: str
    reason: str
    back_on: str
    by_hand: bool
    at: float
    """Seconds since the epoch."""
    passed: list[str] = field(default_factory=list)
    """Generations that `doit rollback` left; a further rollback skips them."""

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.at))
        how = "left by hand" if self.by_hand else f"refused: {self.reason}"
        if self.generation == self.back_on:
            return f"what machine.yaml asks for was {how}; since {when} the machine runs as before"
        return f"generation {self.generation} was {how}; since {when} {self.back_on} runs instead"


def refusal(run: Run) -> Refusal | None:
    """The refusal that applies now; None without one, or when the request changed."""
    if run.force:
        return None
    try:
        found = Refusal(**files.read_receipt(run.layout.refused))
        holds = found.wish == _request_digest(run) and _is_whole(run.layout, found.back_on)
        return found if holds else None
    except (TypeError, Failure):
        return None


def folder_of(run: Run) -> Path:
    """The generation that instances start on. Raises Failure without one."""
    if found := refusal(run):
        return run.layout.generations / found.back_on
    return generation.folder_of(run)


def config_of(run: Run, gpu: int) -> Path:
    """The PM2 config that a GPU's apps start with."""
    layout = run.layout
    if found := refusal(run):
        return layout.good(found.back_on) / layout.rendered(gpu).name
    return layout.seen(layout.rendered(gpu))


def apps_of(run: Run, gpu: int) -> list[dict[str, Any]]:
    """The apps in a GPU's PM2 config; empty without one."""
    found: list[dict[str, Any]] = files.read_receipt(config_of(run, gpu), apps=list).get("apps", [])
    return found


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
    rendered = {path.name: path.read_bytes() for path in _rendered(layout)}
    newest = "".join(good(layout)[-1:])
    if (
        refusal(run)
        or not _is_whole(layout, newest)
        or rendered == _recorded_configs(layout, newest)
    ):
        return None
    return newest


def refuse(run: Run, reason: str) -> Refusal | None:
    """Refuse what machine.yaml asks for, and point back; None without a fallback."""
    name = fallback(run)
    return _point_back(run, name, reason) if name else None


def roll_back(run: Run) -> Refusal:
    """Point back to the next older good generation, one further each time.

    Raises Failure without one.
    """
    layout = run.layout
    before = refusal(run)
    current = layout.current.resolve().name
    passed = [*(before.passed if before else ()), current]
    others = [n for n in good(layout) if n not in passed and _is_whole(layout, n)]
    if not others:
        on = f"; {before}; doit force=1 goes forward again" if before else ""
        raise Failure(f"no good generation to go back to, besides {current}{on}")
    return _point_back(run, others[-1], "doit rollback", passed=passed)


def _point_back(run: Run, name: str, reason: str, *, passed: Sequence[str] = ()) -> Refusal:
    """Point `current` at a good generation; `passed` is set when a person asked for it."""
    layout = run.layout
    left = generation.folder_of(run).name
    # Tables and logs need one line.
    line, by_hand = " ".join(reason.split()), bool(passed)
    refused = Refusal(_request_digest(run), left, line, name, by_hand, time.time(), [*passed])
    # The link first: after a kill in between, the next run tries again.
    files.point(layout.current, os.path.relpath(layout.generations / name, layout.state))
    files.write_receipt(layout.refused, asdict(refused))
    remember(layout, name, run.machine.retention.generations)
    return refused


def _request_digest(run: Run) -> str:
    """A digest of the request: machine.yaml, the lock, the generation, the variables used."""
    layout = run.layout
    other = {"lock", "lock_damage", "enabled", "retention"}
    wishes = run.machine.model_dump_json(exclude=other)
    used = {name: run.machine.env.get(name) for name in re.findall(r"\$\{(\w+)", wishes)}
    text = json.dumps([wishes, used, generation.folder_of(run).name], sort_keys=True)
    lock = files.file_digest(run.machine.lock_file)
    return keyed_hash(layout, f"{lock}{text}")[:16]


def keyed_hash(layout: Layout, text: str) -> str:
    """HMAC-SHA256 in hex with a key of this workspace: allows to compare secrets, not to guess."""
    key_file = layout.seen(layout.state / "fingerprint.key")
    if not key_file.exists():
        key_file = layout.kept(key_file)
        files.write_text(key_file, secrets.token_hex(32), mode=0o600)
    return hmac.new(key_file.read_bytes(), text.encode(), hashlib.sha256).hexdigest()


def _rendered(layout: Layout) -> list[Path]:
    return sorted(layout.apps.glob("gpu*.config.json"))


def _recorded_configs(layout: Layout, name: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in layout.good(name).glob("gpu*.config.json")}


def _recorded_packages(layout: Layout, name: str) -> bytes | None:
    file = layout.good(name) / layout.packages.name
    return file.read_bytes() if file.exists() else None


def _is_whole(layout: Layout, name: str) -> bool:
    there = bool(name) and (layout.generations / name / "ComfyUI").is_dir()
    return there and bool(_recorded_configs(layout, name))


def reason_to_record(run: Run) -> str | None:
    """Why what runs isn't recorded as good, or the refusal; None: it is recorded."""
    layout = run.layout
    if found := refusal(run):
        return str(found)
    if not run.instances:
        return None
    current = layout.current.resolve().name
    if good(layout)[-1:] != [current]:
        return "the current generation isn't recorded as good yet"
    rendered = {
        layout.rendered(i.gpu).name: layout.seen(layout.rendered(i.gpu)).read_bytes()
        for i in run.instances
    }
    if rendered != _recorded_configs(layout, current):
        return "the configs of the instances aren't recorded as good yet"
    if layout.seen(layout.packages).read_bytes() != _recorded_packages(layout, current):
        return "the packages of the current generation aren't recorded yet"
    return "the refusal is over" if layout.refused.exists() else None


def raise_if_refused(run: Run) -> None:
    """Raises Failure while a refusal applies."""
    if found := refusal(run):
        raise Failure(f"{found}; correct machine.yaml, or try again: doit force=1")


def record_good(run: Run) -> None:
    """Record what instances run with as good. Raises Failure while a refusal applies."""
    layout = run.layout
    raise_if_refused(run)
    if reason_to_record(run) is None:
        return
    current = layout.current.resolve().name
    keep = {layout.rendered(instance.gpu) for instance in run.instances}
    for path in layout.good(current).glob("gpu*.config.json"):
        if path.name not in {each.name for each in keep}:
            files.remove(path)
    for path in keep:
        files.write_text(layout.good(current) / path.name, path.read_text())
    files.write_text(layout.good(current) / layout.packages.name, layout.packages.read_text())
    remember(layout, current, run.machine.retention.generations)
    files.remove(layout.refused)


def remove_unused(layout: Layout) -> None:
    """Remove the records and secrets of generations that no longer exist.

    `state` may be a volume with records of other images' generations.
    """
    for folder in layout.state.glob("good/*"):
        if folder.name != layout.current.resolve().name and not _is_whole(layout, folder.name):
            files.remove(folder)
    _remove_unused_secrets(layout)


def _remove_unused_secrets(layout: Layout) -> None:
    """Remove secrets files that no config names; the health server removes its own."""
    configs = [*_rendered(layout), *layout.state.glob("good/*/gpu*.config.json")]
    text = "".join(path.read_text() for path in configs)
    for path in layout.secrets.glob("*.json"):
        if str(path) not in text and not path.name.startswith(f"{apps.SERVER}-"):
            files.remove(path)
