"""All sources of advisories that machine.yaml names, asked about the same things."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..downloads.web import Web
from ..system import files
from ..system.failure import Failure
from .osv_document import Advisory, Subject, advisory, affects
from .osv_service import Service


@dataclass
class Findings:
    """What the sources say."""

    affecting: dict[Subject, list[Advisory]] = field(default_factory=dict)
    undecided: dict[Subject, list[Advisory]] = field(default_factory=dict)
    """About it, and whether about this version can't be told."""
    failed: list[str] = field(default_factory=list)
    """Why a source has no answer, a line for each."""


def ask(sources: Sequence[str], subjects: Sequence[Subject], web: Web) -> Findings:
    """What these sources know: addresses of services, and files or folders of documents."""
    found = Findings()
    wanted = list(dict.fromkeys(subjects))
    for source in sources:
        try:
            if "://" in source:
                for subject, listed in Service(source, web).ask(wanted).items():
                    _add(found.affecting, subject, listed)
            else:
                _read(Path(source), wanted, found)
        except Failure as failure:
            found.failed.append(str(failure))
    return found


def _read(source: Path, subjects: Sequence[Subject], found: Findings) -> None:
    for document in _documents(source):
        about = advisory(document)
        for subject in subjects if about else ():
            answer = affects(document, subject)
            if about and answer is not False:
                _add(found.affecting if answer else found.undecided, subject, [about])


def _add(to: dict[Subject, list[Advisory]], subject: Subject, more: Sequence[Advisory]) -> None:
    """Several sources, and several documents of one source, may be about the same."""
    known = to.setdefault(subject, [])
    for each in more:
        if not any(each.names & other.names for other in known):
            known.append(each)


def _documents(source: Path) -> Iterator[Mapping[str, Any]]:
    """The documents of a file, a folder, or a zip archive such as OSV's own all.zip.

    Raises Failure for what can't be read: an advisory must not get lost.
    """
    try:
        for name, content in _contents(source):
            document = json.loads(content)
            if not isinstance(document, dict):
                raise Failure(f"{name} isn't a document in OSV's format")
            yield document
    except (ValueError, RecursionError) as error:
        raise Failure(f"{source} holds what isn't JSON: {error}") from None
    except (OSError, zipfile.BadZipFile) as error:
        raise Failure(f"{source} can't be read: {getattr(error, 'strerror', error)}") from None


def _contents(source: Path) -> Iterator[tuple[str, bytes]]:
    if source.is_dir():
        for path in sorted(source.rglob("*.json")):
            yield str(path), files.read_bytes(path)
    elif source.suffix == ".zip":
        with zipfile.ZipFile(source) as opened:
            for member in opened.infolist():
                if member.file_size > files.LONGEST:
                    raise Failure(f"{source}: {member.filename} is too large for an advisory")
                if member.filename.endswith(".json"):
                    yield f"{source}: {member.filename}", opened.read(member)
    else:
        yield str(source), files.read_bytes(source)
