"""The requirements of ComfyUI, the custom nodes and machine.yaml; unusable ones are refused."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import nodes
from ..engine.run import Run
from ..host.system import files
from ..host.system.failure import Failure
from ..host.system.redaction import redact
from ..source import stage as source
from ..spec import CustomNode
from ..spec.lock_format import Requirements
from . import pyproject

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from pip_requirements_parser import InstallRequirement, RequirementsFile

FILE = "requirements.txt"
CONSTRAINT = "-c "
COMFYUI = "ComfyUI"
LONGEST_FILE = 1 << 20
"""Bytes of a requirements file; the longest of the field has 20,000."""
LONGEST_LINE = 4000
"""Characters of a line; a URL has at most about 2,000."""
MOST_LINES = 5000
"""Lines of all files of a checkout, also of those that they include again."""
PLACE_OPTIONS = frozenset(["index_url", "extra_index_urls", "find_links"])
"""Options that say where to look for packages."""


@dataclass(frozen=True)
class Line:
    """One requirement or constraint, and its place."""

    text: str
    place: str
    """File and line, as in requirements.txt:3."""
    name: str | None
    """The package's name; None for a URL without one."""
    constraint: bool = False
    url: str | None = None
    """The package's URL, if the line has one."""

    def __str__(self) -> str:
        return f"{CONSTRAINT}{self.text}" if self.constraint else self.text

    @property
    def hashes(self) -> set[str]:
        """The allowed sha256 of its file; empty: any."""
        return set(re.findall(r"--hash=sha256:([0-9a-f]{64})", self.text))

    @property
    def bare(self) -> str:
        """The text without marker and hashes."""
        return re.split(r"\s*;|\s--hash", self.text, maxsplit=1)[0].strip()

    @property
    def is_plain(self) -> bool:
        """Whether it accepts any version of its package."""
        return self.name is not None and re.fullmatch(r"[\w.-]+(\[[^]]*\])?", self.bare) is not None

    @property
    def requirement(self) -> Requirement | None:
        """The line parsed by `packaging`; None for a URL without a name."""
        from packaging.requirements import InvalidRequirement, Requirement

        try:
            return Requirement(self.text.partition(" --")[0])
        except (InvalidRequirement, RecursionError):
            return None

    @property
    def applies(self) -> bool:
        """Whether its marker, if any, matches this platform and Python."""
        requirement = self.requirement
        marker = requirement.marker if requirement else None
        return marker is None or marker.evaluate()


@dataclass
class Request:
    """The requirements of one custom node, or of ComfyUI or machine.yaml (node None)."""

    node: CustomNode | None
    lines: list[Line] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    """Option lines, ignored because they would apply to every package."""
    places: list[str] = field(default_factory=list)
    """Those of them that say where to look for packages."""
    remarks: list[str] = field(default_factory=list)
    """Other messages about its files."""
    by: str = COMFYUI
    """The owner, unless it is a node."""
    lines_read: int = 0
    """Of all its files."""

    @property
    def owner(self) -> str:
        return f"custom node {self.node.name}" if self.node else self.by


class RefusedRequirement(Failure):
    """A line that can't be used; `node` is the one that has it."""

    def __init__(self, message: str, node: CustomNode | None) -> None:
        super().__init__(message)
        self.node = node


def normalized(name: str) -> str:
    """A package's normalized name (PEP 503)."""
    from packaging.utils import canonicalize_name

    return str(canonicalize_name(name.strip(".-_")))


def read_comfyui(run: Run) -> Request:
    comfyui = source.source_of(run)
    return read_checkout(None, comfyui.checkout(str(comfyui.read().get("commit"))))


def read_machine(run: Run) -> Request:
    """machine.yaml's python.packages."""
    lines = [_locked_line(text, "python.packages") for text in run.machine.python.packages]
    return Request(None, lines, by=run.machine.file.name)


def read_node(run: Run, node: CustomNode) -> Request:
    """Raises RefusedRequirement."""
    if not node.requirements:
        return Request(node)
    return read_checkout(node, nodes.folder_of(run, node))


def read_locked(run: Run, node: CustomNode) -> Request:
    """A node's requirements as machine.lock records them."""
    python = run.machine.lock.python
    texts = python.asked.requirements.custom_nodes.get(node.name, ()) if python else ()
    return Request(node, [_locked_line(text, run.machine.lock_file.name) for text in texts])


def without_nodes(asked: Iterable[Request], names: Container[str]) -> tuple[Request, ...]:
    """The requests of all but these nodes."""
    return tuple(each for each in asked if not (each.node and each.node.name in names))


def locked_form(asked: Iterable[Request]) -> Requirements:
    """The requirements as machine.lock records them, without machine.yaml's own."""
    lines = [(each, tuple(sorted(map(str, each.lines)))) for each in asked]
    return Requirements(
        comfyui=next((texts for each, texts in lines if each.owner == COMFYUI), ()),
        custom_nodes={each.node.name: texts for each, texts in lines if each.node and texts},
    )


def read_checkout(node: CustomNode | None, folder: Path) -> Request:
    """Read a checkout's requirements file and the files that it names.

    Without one, read its pyproject.toml. With both, other tools install only the first, so
    authors test that one. Raises RefusedRequirement.
    """
    asked, top = Request(node), files.real(folder)
    if name := _file(folder):
        file = _inside_checkout(asked, top, Path(), name, name)
        lines = _read(asked, top, file, constraint=False)
    else:
        lines = _of_project(asked, top)
    known = {str(line) for line in asked.lines}
    for line in lines:
        if str(line) not in known:
            known.add(str(line))
            asked.lines.append(line)
    return asked


def _file(folder: Path) -> str | None:
    """The name of its requirements file in any case; the lower-case one wins."""
    try:
        names = sorted(path.name for path in folder.iterdir() if path.name.lower() == FILE)
    except OSError:
        return None
    return FILE if FILE in names else next(iter(names), None)


def _of_project(asked: Request, top: Path) -> Iterator[Line]:
    try:
        project = pyproject.read_project(top)
    except pyproject.UnreadableProject as error:
        asked.remarks.append(f"{pyproject.FILE} {error}: its dependencies are not installed")
        return
    for name in project.files:
        file = _inside_checkout(asked, top, Path(), name, pyproject.FILE)
        yield from _read(asked, top, file, constraint=False)
    with pyproject.as_requirements(project) as file:
        for requirement in _parse(asked, file, pyproject.FILE).requirements:
            line = _line(asked, requirement, Path(pyproject.FILE), False)
            yield replace(line, place=project.place_of(line.place.rpartition(":")[2]))


def _locked_line(text: str, place: str) -> Line:
    """A line that was accepted before."""
    line = Line(text.removeprefix(CONSTRAINT), place, None, text.startswith(CONSTRAINT))
    found = line.requirement
    return replace(line, name=found.name if found else None, url=_url(text))


def _read(
    asked: Request, top: Path, file: Path, *, constraint: bool, depth: int = 0
) -> Iterator[Line]:
    if depth > 10:
        raise _refused(asked, f"{file}, which includes itself")
    parsed = _parse(asked, top / file, str(file))
    for option in parsed.options:
        place = f"{file}:{option.requirement_line.line_number}"
        for kind in ("requirements", "constraints"):
            for other in option.options.get(kind) or ():
                inner = _inside_checkout(asked, top, file.parent, other, place)
                limits = constraint or kind == "constraints"
                yield from _read(asked, top, inner, constraint=limits, depth=depth + 1)
        if not {"requirements", "constraints"} & set(option.options):
            text = f"{redact(option.requirement_line.line)} ({place})"
            asked.unused.append(text)
            asked.places += [text] if PLACE_OPTIONS & set(option.options) else []
    for requirement in parsed.requirements:
        yield _line(asked, requirement, file, constraint)


def _parse(asked: Request, file: Path, shown: str) -> RequirementsFile:
    from pip_requirements_parser import RequirementsFile

    _refuse_long(asked, file, shown)
    try:
        parsed = RequirementsFile.from_file(str(file), include_nested=False)
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise _refused(asked, f"{shown}, which can't be read ({why})") from None
    for bad in parsed.invalid_lines:
        raise _refused(
            asked, f"{bad.line!r} ({shown}:{bad.line_number}), which isn't a requirement"
        )
    return parsed


def _refuse_long(asked: Request, file: Path, shown: str) -> None:
    """Raises RefusedRequirement for a file that takes the parser minutes."""
    try:
        with files.open_regular(file) as opened:
            content = opened.read(LONGEST_FILE + 1)
    except OSError as error:
        raise _refused(asked, f"{shown}, which can't be read ({error.strerror})") from None
    if len(content) > LONGEST_FILE:
        raise _refused(asked, f"{shown}, which is longer than {LONGEST_FILE} bytes")
    lines = content.splitlines()
    asked.lines_read += len(lines)
    if asked.lines_read > MOST_LINES:
        raise _refused(asked, f"{shown}, which makes more than {MOST_LINES} lines")
    for number, line in enumerate(lines, 1):
        if len(line) > LONGEST_LINE:
            raise _refused(
                asked, f"{shown}:{number}, which is longer than {LONGEST_LINE} characters"
            )


def _inside_checkout(asked: Request, top: Path, folder: Path, name: str, place: str) -> Path:
    """The file relative to its checkout, links resolved. Raises RefusedRequirement if outside."""
    file = files.real(top / folder / name)
    if "://" in name or not file.is_relative_to(top):
        raise _refused(asked, f"{redact(name)!r} ({place}), which isn't in its repository")
    if not file.is_file():
        raise _refused(asked, f"{name!r} ({place}), which is missing")
    return file.relative_to(top)


def _line(asked: Request, requirement: InstallRequirement, file: Path, constraint: bool) -> Line:
    place = f"{file}:{requirement.requirement_line.line_number}"
    text = re.sub(r"\s+", " ", requirement.requirement_line.line).strip()
    link = requirement.link
    if requirement.is_editable and link and link.scheme.startswith("git+"):
        text = re.sub(r"^(-e|--editable)[ =]", "", text)
    elif requirement.is_editable or (link and link.scheme in ("", "file")) or _is_path(text):
        raise _refused(asked, f"the local {text!r} ({place})")
    if "${" in text:
        # uv and pip would expand it, and the lock would keep the value.
        raise _refused(asked, f"an environment variable: {text!r} ({place})")
    if redact(text) != text:
        raise _refused(asked, f"a URL with credentials ({place})")
    if link and "+" in link.scheme and not link.scheme.startswith("git+"):
        raise _refused(asked, f"{text!r} ({place}), but only git repositories are supported")
    # Drop pip's options for one package, such as --global-option; keep hashes.
    words = text.split(" --")
    text = " --".join([words[0], *(word for word in words[1:] if word.startswith("hash="))])
    return Line(text, place, requirement.name, constraint, _url(text))


def _url(text: str) -> str | None:
    match = re.search(r"(?:git\+)?(?<![a-z])([a-z]+://[^\s#@]+(?:@[^\s#@/]+/[^\s#@]+)?)", text)
    return match[1] if match else None


def _is_path(text: str) -> bool:
    return re.match(r"\.|/|~|file:", text) is not None


def _refused(asked: Request, what: str) -> RefusedRequirement:
    advice = "correct it in a fork"
    if asked.node:
        advice += ", or set requirements: false and install them by its script"
    return RefusedRequirement(f"{asked.owner} requires {what}: {advice}", asked.node)
