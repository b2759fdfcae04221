"""The kinds of files and folders below `.machine`; `test_kinds` fails for one without a row."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class Kind:
    """Paths below `.machine` that match a pattern: `*` is part of a name, `**` any path."""

    name: str
    pattern: str

    @cached_property
    def matches(self) -> re.Pattern[str]:
        words = {"**": ".*", "*": "[^/]*"}
        parts = re.split(r"(\*\*|\*)", self.pattern)
        return re.compile("".join(words.get(part, re.escape(part)) for part in parts) + r"\Z")


SITE = "environments/*/lib/python*/site-packages"
CHECKOUT = "generations/*/ComfyUI"
NODE = f"{CHECKOUT}/custom_nodes/*"

#: The first row that matches counts.
KINDS = tuple(
    Kind(name, pattern)
    for name, pattern in (
        ("a file that is being written", "**.part"),
        ("a folder that is being made", "**.part/**"),
        ("sources", "sources"),
        ("a source's receipt of its flags", "sources/*.code.json"),
        ("a source", "sources/*@*"),
        ("a source's .git", "sources/*/.git"),
        ("a source's HEAD", "sources/*/.git/HEAD"),
        ("a source's index", "sources/*/.git/index"),
        ("a source's shallow", "sources/*/.git/shallow"),
        ("a source's objects", "sources/*/.git/objects"),
        ("a source's object", "sources/*/.git/objects/**"),
        ("a source's other .git file", "sources/*/.git/**"),
        ("a source's file", "sources/*/**"),
        ("environments", "environments"),
        ("an environment's receipt", "environments/*.json"),
        ("an environment", "environments/*"),
        ("an environment's bin", "environments/*/bin"),
        ("an environment's Python", "environments/*/bin/python*"),
        ("an environment's program", "environments/*/bin/*"),
        ("an environment's pyvenv.cfg", "environments/*/pyvenv.cfg"),
        ("an environment's lib", "environments/*/lib"),
        ("an environment's lib64", "environments/*/lib64"),
        ("an environment's lib/python", "environments/*/lib/python*"),
        ("site-packages", SITE),
        ("our .pth file", f"{SITE}/comfy_machine.pth"),
        ("a dist-info", f"{SITE}/*.dist-info"),
        ("a RECORD", f"{SITE}/*.dist-info/RECORD"),
        ("a METADATA", f"{SITE}/*.dist-info/METADATA"),
        ("another file of a dist-info", f"{SITE}/*.dist-info/**"),
        ("a package's bytecode", f"{SITE}/**/__pycache__/*"),
        ("a package", f"{SITE}/*"),
        ("a package's native library", f"{SITE}/**.so"),
        ("a package's file", f"{SITE}/**"),
        ("an environment's package list", "environments/*/packages.txt"),
        ("an environment's constraints", "environments/*/constraints.txt"),
        ("another file of uv's in an environment", "environments/*/*"),
        ("generations", "generations"),
        ("a generation's stamps", "generations/*.files.json"),
        ("a generation's validation", "generations/*.validation.json"),
        ("a generation's changes", "generations/*.changes.jsonl"),
        ("a generation's receipt", "generations/*.json"),
        ("a generation", "generations/*"),
        ("a generation's environment link", "generations/*/environment"),
        ("a generation's ComfyUI", CHECKOUT),
        ("a generation's models link", f"{CHECKOUT}/models"),
        ("a generation's custom_nodes", f"{CHECKOUT}/custom_nodes"),
        ("a generation's bytecode", f"{CHECKOUT}/**__pycache__**"),
        ("a node's .git", f"{NODE}/.git"),
        ("a node's HEAD", f"{NODE}/.git/HEAD"),
        ("a node's index", f"{NODE}/.git/index"),
        ("a node's object", f"{NODE}/.git/objects**"),
        ("another .git file of a node", f"{NODE}/.git/**"),
        ("a node's .env", f"{NODE}/.env"),
        ("a node's untracked file", f"{NODE}/settings.json"),
        ("a node's file", f"{NODE}/**"),
        ("a node", NODE),
        ("ComfyUI's .git", f"{CHECKOUT}/.git"),
        ("ComfyUI's HEAD", f"{CHECKOUT}/.git/HEAD"),
        ("ComfyUI's index", f"{CHECKOUT}/.git/index"),
        ("ComfyUI's object", f"{CHECKOUT}/.git/objects**"),
        ("another .git file of ComfyUI", f"{CHECKOUT}/.git/**"),
        ("ComfyUI's main.py", f"{CHECKOUT}/main.py"),
        ("ComfyUI's file", f"{CHECKOUT}/**"),
        ("receipts", "receipts"),
        ("the nodes' receipts", "receipts/nodes"),
        ("a node's receipt", "receipts/nodes/*.json"),
        ("the environment's pointer", "receipts/environment.json"),
        ("the generation's pointer", "receipts/generation.json"),
        ("ComfyUI's receipt", "receipts/source.json"),
        ("the lock's receipt", "receipts/lock.json"),
        ("the Python set", "receipts/python.json"),
        ("another receipt", "receipts/*.json"),
        ("logs", "logs"),
        ("a log", "logs/*"),
        ("progress", "progress"),
        ("a file of progress", "progress/*"),
        ("scratch", "scratch"),
        ("a temporary file", "scratch/**"),
        ("garbage", "garbage"),
        ("what is being deleted", "garbage/**"),
        ("left", "left"),
        ("a removed node's file", "left/**"),
        ("where the folder of left files was", "repaired"),
        ("what was in its place", "repaired/**"),
        ("supervisor", "supervisor"),
        ("PM2", "supervisor/*"),
        ("PM2's receipt", "supervisor/*/receipt.json"),
        ("PM2's node_modules", "supervisor/*/node_modules"),
        ("PM2's own file", "supervisor/*/node_modules/pm2/**"),
        ("a file that PM2 needs", "supervisor/*/node_modules/**"),
        ("npm's file", "supervisor/*/*"),
        ("state", "state"),
        ("the link to the current generation", "state/current"),
        ("the link to the models", "state/models"),
        ("the key", "state/fingerprint.key"),
        ("the list of good generations", "state/healthy.json"),
        ("the ports", "state/ports.json"),
        ("the refusal", "state/refused.json"),
        ("what was stopped", "state/stopped.json"),
        ("the cordoned GPUs", "state/cordoned.json"),
        ("held", "state/held"),
        ("a held worker's mark", "state/held/*"),
        ("probed", "state/probed"),
        ("a worker's failed probe", "state/probed/*"),
        ("the garbage lock", "state/garbage.lock"),
        ("extra_model_paths.yaml", "state/extra_model_paths.yaml"),
        ("good", "state/good"),
        ("a good generation's folder", "state/good/*"),
        ("a good generation's file", "state/good/*/*"),
        ("apps", "state/apps"),
        ("an instance's config", "state/apps/gpu*.config.json"),
        ("an instance's config receipt", "state/apps/gpu*.receipt.json"),
        ("another app's file", "state/apps/*"),
        ("starts", "state/starts"),
        ("an app's last starts", "state/starts/*.json"),
        ("env", "state/env"),
        ("a secret's file", "state/env/*.json"),
        ("the nodes' .env files", "state/env/nodes"),
        ("a node's .env file", "state/env/nodes/*"),
        ("jobs", "state/jobs"),
        ("the NATS server's token", "state/jobs/token"),
        ("the NATS server's config", "state/jobs/nats.conf"),
        ("the NATS server's store", "state/jobs/**"),
        ("instances", "state/instances"),
        ("an instance's folder", "state/instances/*"),
        ("an instance's user folder", "state/instances/*/user"),
        ("an instance's file for the user", "state/instances/*/user/**"),
        ("an instance's temp", "state/instances/*/temp"),
        ("an instance's temporary file", "state/instances/*/temp/**"),
        ("an instance's databases", "state/instances/*/databases"),
        ("an instance's database", "state/instances/*/databases/*"),
        ("an instance's reports", "state/instances/*/reports"),
        ("an instance's report", "state/instances/*/reports/*"),
        ("an instance's mark", "state/instances/*/*"),
        ("another file of the state", "state/*.json"),
        ("what a case of ours put in the place of a file", "**/note.txt"),
    )
)


def kind_of(name: str) -> Kind | None:
    """The kind of a path relative to `.machine`."""
    return next((kind for kind in KINDS if kind.matches.match(name)), None)


def names_below(machine: Path) -> Iterator[str]:
    """Every path below `.machine`, relative to it; links aren't followed."""
    for folder, folders, files in os.walk(machine):
        for name in (*folders, *files):
            yield os.path.relpath(os.path.join(folder, name), machine)  # noqa: PTH118
