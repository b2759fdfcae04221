"""Who says where the nodes of workflows come from: we, comfy-cli and comfygit."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_machine.imports import source_search
from comfy_machine.imports.gathered import gathered
from comfy_machine.imports.model_catalogue import ModelCatalogue
from comfy_machine.imports.node_catalogue import NodeCatalogue, key
from comfy_machine.imports.source_search import Needed
from comfy_machine.spec.node_uses import NodeUse
from tests.benchmarks.figures import run

LONGEST = 300.0
"""Seconds that a rival may take for a workflow."""


@dataclass(frozen=True)
class Case:
    """A workflow without its ids, and the classes to find."""

    repository: str
    name: str
    document: Any
    uses: Sequence[NodeUse]
    wanted: frozenset[str]
    """The classes that aren't ComfyUI's own."""
    known: frozenset[str]
    """Those of them that the repository has, by its own source."""


@dataclass(frozen=True)
class Answer:
    """What one resolver says of one workflow."""

    unknown: frozenset[str]
    named: frozenset[str] = frozenset()
    """The repositories, by their keys."""
    whose: Mapping[str, str] | None = None
    """Class → repository; None: it doesn't say."""
    evidence: Mapping[str, str] = field(default_factory=dict)
    guessed: frozenset[str] = frozenset()
    seconds: float = 0.0

    def is_right(self, kind: str, repository: str) -> bool:
        if self.whose is None:
            return kind not in self.unknown and repository in self.named
        return self.whose.get(kind) == repository


Resolver = Callable[[Case, Path], Answer]
"""Asked with the file that holds the workflow."""


def ours(core: frozenset[str], catalogue: NodeCatalogue, with_source: bool) -> Resolver:
    """`with_source`: also look in the source of repositories that are needed, which git fetches."""

    def ask(case: Case, _: Path) -> Answer:
        began = time.perf_counter()
        found = gathered({case.name: case.uses}, core, catalogue, ModelCatalogue())
        if with_source:
            needed = [Needed(each, catalogue.url(each), "HEAD", False) for each in found.packages]
            source_search.settle(found, needed, lambda _: None)
        sourced = [each for package in found.packages.values() for _, each in package.found]
        whose = {each.use.kind: each.repository for each in sourced}
        return Answer(
            case.wanted - whose.keys(), frozenset(whose.values()), whose,
            {each.use.kind: each.evidence or "none" for each in sourced},
            frozenset(each.use.kind for each in sourced if each.is_guess),
            time.perf_counter() - began,
        )  # fmt: skip

    return ask


def comfy_cli(program: Path, workspace: Path) -> Resolver:
    def ask(case: Case, file: Path) -> Answer:
        output = file.with_suffix(".cli.json")
        words: list[str | Path] = [
            program, "--skip-prompt", "--workspace", workspace, "node", "deps-in-workflow",
            "--mode", "local", "--workflow", file, "--output", output,
        ]  # fmt: skip
        _, seconds, _ = run(words, workspace, os.environ | {"DO_NOT_TRACK": "1"}, LONGEST)
        found = json.loads(output.read_bytes()) if output.exists() else {}
        named = frozenset(map(key, found.get("custom_nodes", ())))
        unseen = case.wanted - seen_by_manager(case.document) if found else case.wanted
        return Answer(
            unseen | (case.wanted & {*found.get("unknown_nodes", ())}), named, seconds=seconds
        )

    return ask


def seen_by_manager(document: Any) -> set[str]:
    """The classes that ComfyUI-Manager reads; those in subgraphs and in API format it doesn't.

    Source: `extract_nodes_from_workflow` of its manager_core.py, 4.3.
    """
    extra = document.get("extra")
    groups = (extra if isinstance(extra, dict) else {}).get("groupNodes") or {}
    parts = [document, *groups.values()] if "nodes" in document else []
    return {str(node.get("type")) for part in parts for node in part.get("nodes", ())}


def comfygit(program: Path, workspace: Path) -> Resolver:
    def ask(case: Case, file: Path) -> Answer:
        env = os.environ | {"COMFYGIT_HOME": str(workspace)}
        _, seconds, output = run([program, "analyze", file, "--json"], workspace, env, LONGEST)
        try:
            found = json.loads(output[output.index("{") : output.rindex("}") + 1])["resolution"]
        except (ValueError, LookupError):
            return Answer(case.wanted, seconds=seconds)
        # Whether it could install what it found is another question.
        answers = [*found["nodes_resolved"], *found["nodes_uninstallable"]]
        whose = {
            each["node_type"]: key(each["package_data"]["repository"])
            for each in answers
            if (each.get("package_data") or {}).get("repository")
        }
        return Answer(case.wanted - whose.keys(), frozenset(whose.values()), whose, seconds=seconds)

    return ask
