"""What the registry and advisories say of the custom nodes and packages of a machine."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial

from ... import nodes
from ...engine.run import Run
from ...host.advisories import advisory_sources
from ...host.advisories.advisory_sources import Findings
from ...host.advisories.osv_document import Advisory, Subject
from ...host.downloads.web import Web
from ...host.generations.contents import project_repository, project_version
from ...host.registry.registry_api import TOLERANCE, Node, Registry, Version
from ...host.registry.version_choice import quoted
from ...host.repositories.sources import Source
from ...host.system import thread_pool
from ...host.system.failure import Failure
from ...lock import packages
from ...source import stage as source
from ...spec import CustomNode
from .audit_report import FINE, NAMELESS, Audit, Package, Part, Verdict

ASKED_AT_ONCE = 8
"""Custom nodes."""
_NOT_LOCKED = "machine.lock doesn't name its version yet"


def audit(run: Run, ignored: Collection[str]) -> Audit:
    """Ask the registry and the sources of advisories; `ignored` are ids of advisories."""
    machine = run.machine
    registry = Registry(machine.registry.url)
    judged = thread_pool.each(partial(_judged, run, registry), machine.custom_nodes, ASKED_AT_ONCE)
    parts = [_comfyui(run)]
    for _, part in judged:
        if isinstance(part, BaseException):
            raise part
        parts.append(part)
    listed, unknown = _packages(run) if machine.registry.advisories else ([], ())
    subjects = [each.subject for each in parts if each.subject != NAMELESS]
    about = {each: Subject(each.name, each.version.partition("+")[0]) for each in listed}
    sources = machine.registry.advisories
    found = advisory_sources.ask(sources, [*subjects, *about.values()], Web(tolerance=TOLERANCE))
    return Audit(
        tuple(_with_advisories(each, found, ignored) for each in parts),
        tuple(
            replace(each, advisories=_kept(found.affecting.get(subject, ()), ignored))
            for each, subject in about.items()
        ),
        unknown,
        tuple(found.failed),
    )


def _comfyui(run: Run) -> Part:
    of = source.source_of(run)
    commit = of.commit or ""
    if of.path:
        return Part(of.name, "", ("unknown", "it is a local folder"))
    if not commit:
        return Part(of.name, "", ("unknown", _NOT_LOCKED))
    if not run.machine.registry.advisories:
        return Part(of.name, commit[:12], ("unknown", "registry.advisories is empty"))
    return Part(of.name, commit[:12], FINE, Subject(repository=of.url or "", commit=commit))


def _version(of: Source) -> str | None:
    """The version of the registry that is locked, else the short commit."""
    pin = of.pin or of.found
    if pin is None or of.commit is None:
        return None
    return pin.archive.version if pin.archive else of.commit[:12]


def _judged(run: Run, registry: Registry, node: CustomNode) -> Part:
    """What the registry says of a node, and by which name advisories know it."""
    if node.path:
        return Part(node.name, "", ("unknown", "it is a local folder"))
    of = nodes.source_of(run, node)
    shown, commit = _version(of), of.commit or ""
    if shown is None:
        return Part(node.name, "", ("unknown", _NOT_LOCKED))
    checkout = of.checkout(commit)
    number = shown if node.id else project_version(checkout)
    # An archive's commit is our own: nobody else knows it.
    subject = Subject(
        version=number,
        repository=project_repository(checkout) if node.id else of.url or "",
        commit="" if node.id else commit,
    )
    try:
        known = registry.node(node.id) if node.id else _of_repository(registry, of.url or "")
        verdict, notes = _said(registry, known, number)
    except Failure as failure:
        known, verdict, notes = None, ("unknown", str(failure)), ()
    if node.id and known and known.repository:
        subject = replace(subject, repository=known.repository)
    return Part(node.name, shown, verdict, subject if subject.repository else NAMELESS, notes)


def _of_repository(registry: Registry, url: str) -> Node | None:
    """The registry's node of a repository: a banned one first, if there are several."""
    found = registry.of_repository(url)
    return next(iter(sorted(found, key=lambda each: each.refused is None)), None)


def _said(registry: Registry, node: Node | None, number: str) -> tuple[Verdict, tuple[str, ...]]:
    """What the registry says of a node in a version, and what else there is to say."""
    if node is None:
        return ("unknown", "the registry doesn't have it"), ()
    if node.refused:
        return ("refused", f"the registry has {node.refused} {node.id}{quoted(node)}"), ()
    version = registry.version(node.id, number) if number else None
    if version is None:
        what = f"version {number} of {node.id}" if number else f"which version of {node.id} it is"
        return ("unknown", f"the registry doesn't know {what}"), ()
    return _of_version(node, version)


def _of_version(node: Node, version: Version) -> tuple[Verdict, tuple[str, ...]]:
    notes = ("the registry calls this version deprecated",) if version.deprecated else ()
    said = f"the registry says that {node.id} {version.number} is {version.state}{quoted(version)}"
    if version.is_active:
        return FINE, notes
    # What nobody has looked at yet is not refused, but it isn't judged either.
    return ("unknown" if version.state == "pending" else "refused", said), notes


def _packages(run: Run) -> tuple[list[Package], tuple[str, ...]]:
    """The packages of machine.lock, or of the last run, and those that come from elsewhere."""
    locked = run.machine.lock.python or packages.last_resolved(run)
    every = locked.packages if locked else {}
    listed = [Package(name, each.version) for name, each in every.items() if each.version]
    return listed, tuple(name for name, each in every.items() if not each.version)


def _with_advisories(part: Part, found: Findings, ignored: Collection[str]) -> Part:
    """The part with what sources say of it, and why they say nothing."""
    affecting = _kept(found.affecting.get(part.subject, ()), ignored)
    undecided = _kept(found.undecided.get(part.subject, ()), ignored)
    part = replace(part, advisories=affecting)
    if part.verdict != FINE or affecting:
        return part
    if undecided:
        names = ", ".join(each.id for each in undecided)
        return replace(part, verdict=("unknown", f"whether {names} affects it can't be told"))
    if part.subject == NAMELESS:
        return replace(part, notes=(*part.notes, "no advisory can name it: it has no repository"))
    return replace(part, verdict=("unknown", found.failed[0])) if found.failed else part


def _kept(advisories: Sequence[Advisory], ignored: Collection[str]) -> tuple[Advisory, ...]:
    return tuple(each for each in advisories if not each.names.intersection(ignored))
