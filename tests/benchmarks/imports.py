"""Where the nodes of real workflows come from: how many are found, how many rightly, by whom.

    python -m tests.benchmarks.imports --workflows FOLDER --catalogue LISTS --comfyui CHECKOUT
        [--templates FOLDER] [--source] [--each 12] [--show 40]
        [--comfy-cli PROGRAM --comfy-workspace FOLDER]
        [--comfygit PROGRAM --comfygit-workspace FOLDER]

FOLDER holds checkouts as OWNER/NAME. Each *.json in one that is a workflow is tried, at most
`--each` of a repository; all that say where a node comes from is taken out (`cnr_id`, `aux_id`,
`ver`). The truth is known for a class that the repository's own source names: a workflow that lies
in a repository is taken to mean that one. Classes of ComfyUI itself don't count; each other class
counts once per workflow.

The rivals get the same files. comfy-cli needs a ComfyUI workspace whose environment has
`comfyui_manager`, with the same lists in its package. It names repositories and the classes that
it doesn't know, but not which class is whose, so a class counts as right when its repository is
among those named. comfygit's `analyze` is what its `workflow resolve` asks, without an
environment; its workspace must hold a `node_mappings.json`.

Ends with 1 when a figure is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comfy_machine.imports import core_classes, model_catalogue, node_catalogue
from comfy_machine.imports.model_catalogue import ModelCatalogue
from comfy_machine.imports.named_models import models
from comfy_machine.imports.node_catalogue import key
from comfy_machine.spec.node_uses import uses
from tests.benchmarks.figures import at_least, conclude, exit_on_signals
from tests.benchmarks.import_resolvers import Answer, Case, Resolver, comfy_cli, comfygit, ours

RESOLVED, RIGHT = 0.92, 0.98
"""Asked for, of the classes, and of those with a known truth that are no guess."""
IDS = ("cnr_id", "aux_id", "ver")


@dataclass
class Tally:
    """The figures of one resolver."""

    classes: int = 0
    resolved: int = 0
    nodes: int = 0
    resolved_nodes: int = 0
    sure: Counter[bool] = field(default_factory=Counter)
    """Right or wrong, where the truth is known, it has an answer, and that is no guess."""
    guesses: Counter[bool] = field(default_factory=Counter)
    unanswered: int = 0
    """The truth is known, and it has no answer."""
    evidence: Counter[str] = field(default_factory=Counter)
    repositories: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, case: Case, answer: Answer) -> None:
        self.classes += len(case.wanted)
        self.resolved += len(case.wanted - answer.unknown)
        counted = [use.kind for use in case.uses if use.kind in case.wanted]
        self.nodes += len(counted)
        self.resolved_nodes += sum(kind not in answer.unknown for kind in counted)
        self.evidence.update(answer.evidence.values())
        self.repositories.append(len(answer.named))
        self.seconds.append(answer.seconds)
        for kind in case.known:
            right = answer.is_right(kind, case.repository)
            if kind in answer.unknown:
                self.unanswered += 1
            else:
                (self.guesses if kind in answer.guessed else self.sure)[right] += 1

    def row(self, name: str) -> str:
        return (
            f"| {name} | {share(self.resolved, self.classes)} "
            f"| {share(self.resolved_nodes, self.nodes)} "
            f"| {share(self.sure[True], self.sure.total())} "
            f"| {share(self.guesses[True], self.guesses.total())} | {self.unanswered} "
            f"| {statistics.mean(self.repositories):.2f} | {statistics.median(self.seconds):.2f} |"
        )


HEAD = """\
| | classes with a source | nodes with a source | right, of the known | guesses right \
| known without an answer | repositories per workflow | seconds |
|---|---|---|---|---|---|---|---|"""


def share(part: int, whole: int) -> str:
    return f"{part / whole:.1%} ({part}/{whole})" if whole else "–"


def stripped(document: Any) -> Any:
    """A workflow without what says where a node comes from."""
    if isinstance(document, list):
        return [stripped(each) for each in document]
    if not isinstance(document, dict):
        return document
    kept = {name: stripped(each) for name, each in document.items()}
    if isinstance(properties := kept.get("properties"), dict):
        kept["properties"] = {n: each for n, each in properties.items() if n not in IDS}
    return kept


def cases(folder: Path, each: int, core: frozenset[str]) -> Iterator[Case]:
    """At most `each` of every repository, spread over its files; one of equal ones."""
    seen: set[str] = set()
    for checkout in sorted(folder.glob("*/*")):
        found = []
        for file in sorted(checkout.rglob("*.json")):
            try:
                document = stripped(json.loads(file.read_bytes()))
                workflow = uses(document)
            except (OSError, ValueError, RecursionError):
                continue
            wanted = frozenset(use.kind for use in workflow) - core
            text = json.dumps(document, sort_keys=True)
            if wanted and text not in seen:
                seen.add(text)
                found.append((file.relative_to(folder).as_posix(), document, workflow, wanted))
        own = classes_of(checkout) if found else frozenset()
        repository = key(f"https://github.com/{checkout.parent.name}/{checkout.name}")
        for name, document, workflow, wanted in spread(found, each):
            yield Case(repository, name, document, workflow, wanted, wanted & own)


def spread(found: Sequence[Any], number: int) -> Sequence[Any]:
    return found[:: max(1, -(-len(found) // number))]


def classes_of(checkout: Path) -> frozenset[str]:
    files = [file for file in checkout.rglob("*.py") if file.is_file()]
    return frozenset(name for file in files for name in core_classes.classes_in(file))


def ask_all(resolver: Resolver, tried: Sequence[Case], folder: Path) -> list[Answer]:
    files = []
    for number, case in enumerate(tried):
        files.append(folder / f"{number}.json")
        files[-1].write_text(json.dumps(case.document))
    with ThreadPoolExecutor(2) as pool:
        return [*pool.map(resolver, tried, files)]


def show(tried: Sequence[Case], answers: Sequence[Answer], most: int) -> None:
    """The commonest classes without a source, and the wrong ones."""
    unknown = Counter(kind for answer in answers for kind in answer.unknown)
    wrong = Counter(
        f"{kind} of {case.repository} taken for {(answer.whose or {}).get(kind)}"
        for case, answer in zip(tried, answers, strict=True)
        for kind in case.known - answer.unknown
        if not answer.is_right(kind, case.repository)
    )
    for title, counted in (("no source", unknown), ("wrong", wrong)):
        for what, number in counted.most_common(most):
            print(f"  {title}: {number} × {what}")


def show_models(tried: Sequence[Case], published: ModelCatalogue) -> None:
    named = [each.published for case in tried for each in models(case.uses, published)]
    found = Counter(each.evidence for each in named if each)
    print(f"models: {share(found.total(), len(named))} found: {dict(found)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("workflows", "catalogue", "comfyui"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("templates", "comfy-cli", "comfy-workspace", "comfygit", "comfygit-workspace"):
        parser.add_argument(f"--{name}", type=lambda text: Path(text).absolute())
    parser.add_argument("--each", type=int, default=12, help="workflows of a repository at most")
    parser.add_argument("--source", action="store_true", help="look in needed repositories, too")
    parser.add_argument("--show", type=int, default=0, help="how many failures to name")
    given = parser.parse_args()
    exit_on_signals()
    core = core_classes.core_classes(given.comfyui)
    catalogue = node_catalogue.read(given.catalogue)
    published = [
        *(model_catalogue.of_templates(given.templates) if given.templates else ()),
        *model_catalogue.read(given.catalogue / model_catalogue.MODELS),
    ]
    tried = [*cases(given.workflows, given.each, core)]
    repositories = {case.repository for case in tried}
    print(f"{len(tried)} workflows with custom nodes, of {len(repositories)} repositories")
    resolvers = {"comfy-machine": ours(core, catalogue, given.source)}
    if given.comfy_cli:
        resolvers["comfy-cli"] = comfy_cli(given.comfy_cli, given.comfy_workspace)
    if given.comfygit:
        resolvers["comfygit"] = comfygit(given.comfygit, given.comfygit_workspace)
    rows, tallies = [HEAD], {name: Tally() for name in resolvers}
    for name, resolver in resolvers.items():
        with tempfile.TemporaryDirectory(prefix="comfy-machine-benchmark-") as folder:
            answers = ask_all(resolver, tried, Path(folder))
        for case, answer in zip(tried, answers, strict=True):
            tallies[name].add(case, answer)
        rows.append(tallies[name].row(name))
        if given.show:
            print(name)
            show(tried, answers, given.show)
    print("\n".join(rows))
    tally = tallies["comfy-machine"]
    print(f"by evidence: {dict(tally.evidence)}")
    show_models(tried, model_catalogue.collected(published))
    at_least("classes with a source", tally.resolved / max(1, tally.classes), RESOLVED)
    right = tally.sure[True] / max(1, tally.sure.total())
    at_least("right, of those that are no guess", right, RIGHT)
    return conclude()


if __name__ == "__main__":
    sys.exit(main())
