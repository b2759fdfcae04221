"""The entries of a machine.yaml for what files ask for and workflows need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ..host.repositories import remotes
from ..host.system import thread_pool
from ..host.system.failure import Failure
from ..spec.problems import shown
from . import gathered, source_search
from .disk_models import DiskModels
from .entries import ModelFile, Node
from .gathered import Package
from .lists import Say
from .lookup import Lookup
from .named_models import NamedModel
from .source_search import Needed
from .wanted import Wanted

ASKING = 8
"""Repositories that are asked at a time."""
WHERE = {
    "workflow": "the workflow says where it is published",
    "templates": "in ComfyUI's own templates",
    "list": "in ComfyUI-Manager's list",
}


@dataclass(frozen=True)
class Assembled:
    """Entries, and what isn't known."""

    nodes: Sequence[Node]
    models: Sequence[ModelFile]
    missing: Sequence[str]
    """A line each."""
    guesses: int
    """How many of the nodes are one."""
    incomplete: frozenset[str]
    """The workflows that need something of that."""


def assemble(wanted: Wanted, answers: Lookup, disk: DiskModels, say: Say) -> Assembled:
    """All of it. Raises OSError."""
    named = {answers.repository(node): node for node in wanted.nodes}
    entries, gone, failed = dict(named), list[str](), list[str]()
    others = [each for each in answers.found.packages.values() if each.repository not in named]
    for package, made in thread_pool.each(partial(_node, answers), others, ASKING):
        if isinstance(made, Node):
            entries[package.repository] = made
        elif isinstance(made, Failure):
            kinds = gathered.listed([each.use.kind for _, each in package.found])
            gone.append(f"{kinds}: {made}")
            failed.append(package.repository)
        else:
            raise made
    source_search.settle(answers.found, _needed(entries, named, answers), say)
    packages = {key: answers.found.package(key) for key in entries}
    missing = [
        *wanted.left_out,
        *answers.missing,
        *_unknown_nodes(answers),
        *gone,
        *_unknown_models(answers, disk, wanted.models),
    ]
    return Assembled(
        nodes=[_with_notes(node, packages[key]) for key, node in entries.items()],
        models=[*wanted.models, *_models(answers, disk, wanted.models)],
        missing=[shown(each, 300) for each in missing],
        incomplete=frozenset(
            name
            for name, _ in [
                *answers.found.unknown,
                *(each for key in failed for each in answers.found.packages[key].found),
            ]
        ),
        guesses=sum(each.is_guess and key not in named for key, each in packages.items()),
    )


def _with_notes(node: Node, package: Package) -> Node:
    notes = [shown(each, 200) for each in (*package.notes(), *node.notes)]
    return replace(node, notes=[*dict.fromkeys(notes)])


def _node(answers: Lookup, package: Package) -> Node:
    """The package at the commit that workflows name, else at its newest. Raises Failure."""
    url = answers.nodes.url(package.repository)
    for version in package.versions:
        if remotes.COMMIT.fullmatch(version) and (ref := _tried(url, version)):
            return Node(url=url, ref=ref)
    why = ""
    if package.versions and package.registry_id and answers.registered:
        number, why = answers.registered.version(package.registry_id, package.versions[0])
        if number:
            return Node(id=package.registry_id, version=number)
    made = [f"made with {gathered.listed(package.versions)}"] if package.versions else []
    made += [why] if why else []
    if answers.unreachable:
        return Node(url=url, notes=[*made, "not reached now: the first build takes the newest"])
    newest = remotes.resolve(url, None)
    return Node(url=url, ref=newest, notes=[*made, "the newest commit"] if made else [])


def _tried(url: str, commit: str) -> str:
    try:
        return remotes.resolve(url, commit)
    except Failure:
        return ""


def _needed(entries: dict[str, Node], named: dict[str, Node], answers: Lookup) -> Iterator[Needed]:
    for key, node in entries.items():
        url = node.url or answers.nodes.urls.get(key, "")
        if url and not answers.unreachable:
            yield Needed(key, url, node.ref, for_all=key in named)


def _models(answers: Lookup, disk: DiskModels, others: Sequence[ModelFile]) -> Iterator[ModelFile]:
    taken = {each.target.casefold() for each in others}
    for name, model in answers.found.known_models():
        assert model.published
        assert model.target
        if model.target.casefold() in taken:
            continue
        sha256, note = model.published.sha256, f"for {name}"
        here = disk.by_hash(model.name, sha256) if sha256 else None
        if here:
            yield ModelFile(
                model.target, source=str(here.path), sha256=sha256,
                notes=["on this disk, with the checksum of the published file", note],
            )  # fmt: skip
        else:
            yield ModelFile(
                model.target, url=model.published.url, sha256=sha256,
                notes=[WHERE[model.published.evidence], note],
            )  # fmt: skip
    for name, model in answers.found.unknown_models():
        if found := disk.by_name(model.name):
            target = f"{found.folder}/{model.name}"
            if target.casefold() not in taken:
                notes = ["on this disk, found by its name alone: its content isn't checked"]
                yield ModelFile(target, source=str(found.path), notes=[*notes, f"for {name}"])


def _unknown_nodes(answers: Lookup) -> Iterator[str]:
    for name, each in answers.found.unknown:
        where = f"{name}: node {each.use.id}, class {each.use.kind}"
        yield f"{where}: {_candidates(each.candidates)}"


def _unknown_models(
    answers: Lookup, disk: DiskModels, others: Sequence[ModelFile]
) -> Iterator[str]:
    for name, model in answers.found.unknown_models():
        if not disk.by_name(model.name) and not _among(model, others):
            where = f"{name}: node {model.use.id} ({model.use.kind})"
            yield f"{where} loads {model.name}: no list says where to get it"


def _among(model: NamedModel, others: Sequence[ModelFile]) -> bool:
    """Whether another file has the model that a workflow names."""
    return any(
        f"/{each.target}".casefold().endswith(f"/{model.name}".casefold()) for each in others
    )


def _candidates(candidates: Sequence[str]) -> str:
    if not candidates:
        return "no repository in the catalogue has it"
    return f"one of {gathered.listed(candidates)}"
