"""What ComfyUI and the custom nodes ask for, file by file, and who is to blame when it fails."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tasks import nodes, source
from tasks.host import files, process
from tasks.host.failure import Failure
from tasks.spec import CustomNode, Machine


@dataclass(frozen=True)
class Requirements:
    """A requirements file and who asks for it: a custom node, or ComfyUI (None)."""

    node: CustomNode | None
    file: Path

    @property
    def owner(self) -> str:
        return f"custom node {self.node.name}" if self.node else "ComfyUI"


class Unsatisfied(Failure):
    """uv could not install what is asked for; `blamed` asked for what its message names."""

    def __init__(self, message: str, blamed: list[CustomNode | None], log: Path) -> None:
        super().__init__(message, log)
        self.blamed = blamed


def of(machine: Machine) -> list[Requirements]:
    """The requirements files that are there, ComfyUI's first."""
    comfyui = source.of(machine)
    commit = str(comfyui.read().get("commit"))
    found = [Requirements(None, comfyui.checkout(commit) / "requirements.txt")]
    for node in nodes.present(machine):
        if node.requirements:
            file = nodes.folder_of(machine, node) / "requirements.txt"
            found.append(Requirements(node, file))
    return [each for each in found if each.file.is_file()]


def content(machine: Machine, asked: Requirements) -> object:
    """What a requirements file says; where it names other files, the commit that they are of."""
    refers = any(line.startswith("-") for line in _lines(asked.file))
    commit = refers and asked.node and nodes.source_of(machine, asked.node).read().get("commit")
    return [files.file_digest(asked.file), commit or None]


def _lines(file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    return [line.strip() for line in text.splitlines()]


def refuse_local(asked: Requirements, log: Path) -> None:
    """Raises Unsatisfied for a line that installs a local folder: it would outlive its source."""
    for number, line in enumerate(_lines(asked.file), 1):
        if re.match(r"-e\b|--editable\b|\.|/|file:", line):
            raise Unsatisfied(
                f"{asked.owner} asks for the local {line!r} (requirements.txt:{number}): "
                "fork it and list packages, or set requirements: false",
                [asked.node],
                log,
            )


def explain(
    failed: process.CommandFailed, requirements: list[Requirements], log: Path
) -> Unsatisfied:
    """Whose lines name the packages that uv complains of, then uv's own sentence."""
    lines = [line for line in failed.output.splitlines() if line.startswith((" ", "×", "error"))]
    said = " ".join(line.strip(" │╰─▶×·") for line in lines)
    said = re.sub(r"\s+", " ", said).strip() or process.last_line(failed.output)
    words = {_normal(word) for word in re.findall(r"[A-Za-z0-9][\w.-]*", said)}
    blamed, asked = [], []
    for each in requirements:
        for number, line in enumerate(_lines(each.file), 1):
            name = re.match(r"\s*([A-Za-z0-9][\w.-]*)", line)
            if name and _normal(name.group(1)) in words:
                blamed.append(each.node)
                asked.append(f"{each.owner} asks for {line.strip()!r} (requirements.txt:{number})")
    mend = "correct those lines, or settle it with python.overrides"
    message = "; ".join(["packages can't be installed", *asked[:6], said, mend])
    return Unsatisfied(message, blamed, log)


def _normal(name: str) -> str:
    """A package's name as the index spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower().strip("-")
