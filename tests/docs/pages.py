"""The pages of the documentation, as scripts: what a reader would type, from top to bottom.

A block of `console` holds commands after `$ `; other lines are what they print. Comments above a
block say what a reader knows: `file: NAME` is a file to write, `fails` that its commands fail, and
`not run: REASON` that no test can run it. A page with `on a machine` is about one that runs.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.rig import PROJECT

DOCS = PROJECT / "docs"
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.M | re.S)
COMMENT = re.compile(r"<!-- ([\w ]+?)(?:: ([^>]*?))? -->\s*\Z")


MACHINE = """\
workspace: workspace
comfyui:
  repo: https://github.com/Comfy-Org/ComfyUI.git
  ref: v0.33.0
"""


@dataclass(frozen=True)
class Block:
    """A block of a page, and what the comments above it say."""

    language: str
    text: str
    says: dict[str, str]
    line: int

    @property
    def commands(self) -> list[str]:
        if self.language != "console":
            return []
        return [line[2:] for line in self.text.splitlines() if line.startswith("$ ")]


def pages() -> list[Path]:
    """All of them, the README first."""
    return [PROJECT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in BLOCK.finditer(text):
        above, says = text[: found.start()], {}
        while comment := COMMENT.search(above):
            says[comment[1]] = comment[2] or ""
            above = above[: comment.start()]
        body = textwrap.dedent(found[3])
        yield Block(found[2], body, says, text.count("\n", 0, found.start()) + 1)


def script(page: Path) -> str:
    """What bash runs for a page; `machine_file` makes a machine.yaml one of the simulator."""
    lines = ["set -e -o pipefail"]
    if "<!-- on a machine -->" in page.read_text():
        lines += [f"cat > machine.yaml <<'END'\n{MACHINE}END", "machine_file", "comfy-machine"]
    for block in blocks(page):
        if "not run" in block.says:
            continue
        if name := block.says.get("file"):
            lines += [f"cat > {name} <<'END'\n{block.text}END"]
            lines += ["machine_file"] * (name == "machine.yaml")
        for command in block.commands:
            lines.append(f"echo; echo '{page.name}:{block.line}:' {shlex.quote(f'$ {command}')}")
            if "fails" in block.says:
                lines.append(f"if {command}; then echo 'it did not fail'; exit 1; fi")
            else:
                lines.append(command)
            lines += ["machine_file"] * command.startswith("comfy-machine init")
    return "\n".join(lines) + "\n"
