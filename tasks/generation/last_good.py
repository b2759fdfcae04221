"""The last good generation: what is healthy is noted, what is not is left, and not tried again.

What instances run with on a good generation is kept in `state/good/<generation>`. While
`state/refused.json` holds, that is what they are to run with, whatever machine.yaml asks for.
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
    """Why the machine is not what machine.yaml says."""

    wish: str
    """What was asked for, as `_wish` has it: asked for anything else, the refusal is over."""
    generation: str
    reason: str
    back_on: str
    by_hand: bool
    at: float
    """Seconds since the epoch."""
    passed: list[str] = field(default_factory=list)
    """Generations that were left by hand, which a further step back doesn't return to."""

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.at))
        how = "left by hand" if self.by_hand else f"refused: {self.reason}"
        if self.generation == self.back_on:
            return f"what machine.yaml asks for was {how}; since {when} what ran before is held to"
        return f"generation {self.generation} was {how}; since {when} {self.back_on} is held to"


def refusal(run: Run) -> Refusal | None:
    """What keeps the machine behind machine.yaml; over as soon as something else is asked for."""
    if run.force:
        return None
    try:
        found = Refusal(**files.read_receipt(run.layout.refused))
        holds = found.wish == _request_digest(run) and _is_whole(run.layout, found.back_on)
        return found if holds else None
    except (TypeError, Failure):
        return None


def folder_of(run: Run) -> Path:
    """The generation that instances are to start on. Raises Failure if there is none."""
    if found := refusal(run):
        return run.layout.generations / found.back_on
    return generation.folder_of(run)


def config_of(run: Run, gpu: int) -> Path:
    """The PM2 config that a GPU's apps are to run with."""
    layout = run.layout
    if found := refusal(run):
        return layout.good(found.back_on) / layout.rendered(gpu).name
    return layout.seen(layout.rendered(gpu))


def apps_of(run: Run, gpu: int) -> list[dict[str, Any]]:
    """The apps of a GPU as PM2 is to have them; none where it was never good."""
    found: list[dict[str, Any]] = files.read_receipt(config_of(run, gpu), apps=list).get("apps", [])
    return found


def wanted_fingerprints(run: Run, instances: Sequence[Instance]) -> dict[str, str]:
    """Name → fingerprint of everything that is to run."""
    return {
        app["name"]: app["env"][apps.FINGERPRINT]
        for instance in instances
        for app in apps_of(run, instance.gpu)
    }


def fallback(run: Run) -> str | None:
    """The generation to go back to if what machine.yaml asks for doesn't become healthy."""
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
    """Refuse what machine.yaml asks for, and point back; None where there is nothing to go to."""
    name = fallback(run)
    return _point_back(run, name, reason) if name else None


def roll_back(run: Run) -> Refusal:
    """Point back to the next older good generation, each time one further. Raises Failure."""
    layout = run.layout
    before = refusal(run)
    current = layout.current.resolve().name
    passed = [*(before.passed if before else ()), current]
    others = [n for n in good(layout) if n not in passed and _is_whole(layout, n)]
    if not others:
        on = f"; {before}; doit force=1 goes forward again" if before else ""
        raise Failure(f"there is no good generation to go back to, besides {current}{on}")
    return _point_back(run, others[-1], "doit rollback", passed=passed)


def _point_back(run: Run, name: str, reason: str, *, passed: Sequence[str] = ()) -> Refusal:
    """To have `passed` some is to do it by hand."""
    layout = run.layout
    left = generation.folder_of(run).name
    # In a table and in a log one line is one line.
    said, by_hand = " ".join(reason.split()), bool(passed)
    made = Refusal(_request_digest(run), left, said, name, by_hand, time.time(), [*passed])
    # First the link: a run that is killed in between tries again.
    files.point(layout.current, os.path.relpath(layout.generations / name, layout.state))
    files.write_receipt(layout.refused, asdict(made))
    remember(layout, name, run.machine.retention.generations)
    return made


def _request_digest(run: Run) -> str:
    """What is asked for, in short: machine.yaml, the lock, the generation, the variables used."""
    layout = run.layout
    volatile = {"lock", "lock_damage", "locked", "updates", "overlay", "enabled", "force"}
    volatile |= {"retention"}
    said = run.machine.model_dump_json(exclude=volatile)
    used = {name: run.machine.env.get(name) for name in re.findall(r"\$\{(\w+)", said)}
    text = json.dumps([said, used, generation.folder_of(run).name], sort_keys=True)
    lock = files.file_digest(run.machine.lock_file)
    return keyed_hash(layout, f"{lock}{text}")[:16]


def keyed_hash(layout: Layout, text: str) -> str:
    """An HMAC, so that what holds secrets can be compared, and neither read nor guessed."""
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


def reason_to_record(run: Run, instances: Sequence[Instance]) -> str | None:
    layout = run.layout
    if found := refusal(run):
        return str(found)
    if not instances:
        return None
    current = layout.current.resolve().name
    if good(layout)[-1:] != [current]:
        return "the current generation was not yet noted as good"
    rendered = {
        layout.rendered(i.gpu).name: layout.seen(layout.rendered(i.gpu)).read_bytes()
        for i in instances
    }
    if rendered != _recorded_configs(layout, current):
        return "what instances run with was not yet noted as good"
    if layout.seen(layout.packages).read_bytes() != _recorded_packages(layout, current):
        return "the packages of the current generation were not yet noted"
    return "what was refused is past" if layout.refused.exists() else None


def raise_if_refused(run: Run) -> None:
    """Raises Failure while the machine stays behind machine.yaml."""
    if found := refusal(run):
        raise Failure(f"{found}; correct machine.yaml, or try it again: doit force=1")


def record_good(run: Run, instances: Sequence[Instance]) -> None:
    """Note what instances run with as good. Raises Failure while the machine stays behind."""
    layout = run.layout
    raise_if_refused(run)
    if reason_to_record(run, instances) is None:
        return
    current = layout.current.resolve().name
    keep = {layout.rendered(instance.gpu) for instance in instances}
    for path in layout.good(current).glob("gpu*.config.json"):
        if path.name not in {each.name for each in keep}:
            files.remove(path)
    for path in keep:
        files.write_text(layout.good(current) / path.name, path.read_text())
    files.write_text(layout.good(current) / layout.packages.name, layout.packages.read_text())
    remember(layout, current, run.machine.retention.generations)
    files.remove(layout.refused)


def remove_unused(layout: Layout) -> None:
    """Of what is there no more nothing stays noted, nor any secret that only it needed.

    State may be a volume that other images' generations were noted in.
    """
    for folder in layout.state.glob("good/*"):
        if folder.name != layout.current.resolve().name and not _is_whole(layout, folder.name):
            files.remove(folder)
    _remove_unused_secrets(layout)


def _remove_unused_secrets(layout: Layout) -> None:
    """Files of variables that no config names any more; the health server sees to its own."""
    configs = [*_rendered(layout), *layout.state.glob("good/*/gpu*.config.json")]
    text = "".join(path.read_text() for path in configs)
    for path in layout.secrets.glob("*.json"):
        if str(path) not in text and not path.name.startswith(f"{apps.SERVER}-"):
            files.remove(path)
