"""The documents name what there is."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import subprocess
from pathlib import Path

import pytest

from comfy_machine.engine.run import Run
from comfy_machine.engine.step import step
from comfy_machine.spec.json_schema import schema
from tests.rig import DOIT, PROJECT

ARCHITECTURE = PROJECT / "docs" / "architecture.md"
README = PROJECT / "README.md"
CONTRIBUTING = PROJECT / "CONTRIBUTING.md"
EXAMPLES = [*PROJECT.glob("examples/*/README.md"),
            *PROJECT.glob("examples/simulation/comfyui/**/README.md")]  # fmt: skip
DOCUMENTS = [CONTRIBUTING, README, *PROJECT.glob("docs/**/*.md"), *EXAMPLES]


def book() -> str:
    """All documents, one after the other."""
    return "\n".join(document.read_text() for document in DOCUMENTS)


def packages() -> set[str]:
    tracked = subprocess.check_output(["git", "ls-files", "tasks"], cwd=PROJECT, text=True)
    files = [Path(line) for line in tracked.splitlines()]
    return {str(path.parent) for path in files if path.name == "__init__.py"} - {"tasks"}


def paths(document: Path) -> set[str]:
    """What a document names below the project: links, and paths in backticks."""
    text = document.read_text()
    links = {str((document.parent / link).resolve().relative_to(PROJECT))
             for link in re.findall(r"\]\(([^)#:]+)\)", text)}  # fmt: skip
    code = set(re.findall(r"`((?:tasks|tests|docs|examples|templates)/[\w./-]*)`", text))
    return links | code


def strings() -> str:
    """Every text of the code, one per line; `{…}` stands for what is filled in."""
    found = []
    for file in (PROJECT / "tasks").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(getattr(part, "value", "{…}")) if isinstance(
                    part, ast.Constant) else "{…}" for part in node.values))  # fmt: skip
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_what_a_document_names_exists(document: Path) -> None:
    assert [path for path in sorted(paths(document)) if not (PROJECT / path).exists()] == []


def test_the_architecture_names_attributes_and_arguments_that_exist() -> None:
    text = ARCHITECTURE.read_text()
    attributes = set(re.findall(r"`run\.(\w+)", text))
    fields = {field.name for field in dataclasses.fields(Run)}
    assert {name for name in attributes if name not in fields and not hasattr(Run, name)} == set()
    sentence = re.search(r"`step\(…\)`.*?\. What", text, re.S)
    assert sentence
    arguments = set(re.findall(r"`(\w+)`", sentence[0]))
    assert len(arguments) == 3
    assert arguments <= set(inspect.signature(step).parameters)


def test_the_architecture_names_every_room() -> None:
    named = {path.rstrip("/") for path in paths(ARCHITECTURE)}
    assert packages() - named == set()
    stages = {path for path in named if re.fullmatch(r"tasks/\w+\.py", path)}
    assert stages == {f"tasks/{path.name}" for path in (PROJECT / "tasks").glob("[!_]*.py")
                      if not path.is_symlink()}  # fmt: skip
    assert len(ARCHITECTURE.read_text().splitlines()) <= 200


def test_the_documents_name_commands_that_exist() -> None:
    named = set(re.findall(r"(?:`|\$ )(?:doit|comfy-machine) ([a-z][a-z-]*)\b(?!=)", book()))
    listed = subprocess.check_output([str(DOIT), "help"], cwd=PROJECT, text=True)
    commands = set(re.findall(r"^  ([a-z-]+) ", listed, re.M))
    stages = re.findall(r"yield (?:from (\w+)\.tasks|group\(\s*\"(\w+)\")",
                        (PROJECT / "dodo.py").read_text())  # fmt: skip
    doits = {"forget", "ignore", "reset-dep"}
    assert named - commands - doits - {name for pair in stages for name in pair} == set()
    make = set(re.findall(r"^([\w-]+):", (PROJECT / "Makefile").read_text(), re.M))
    lines = re.findall(r"(?:^|`)make ([a-z -]+?)(?=`|  | [A-Z])", book(), re.M)
    assert {target for line in lines for target in line.split()} - make == set()


def test_the_documents_name_fields_that_exist() -> None:
    """`instances.port_start`, and fields with a value: `pin: uuid`."""
    found = schema()
    top = found["properties"]
    fields = set(top).union(*(part.get("properties", {}) for part in found["$defs"].values()))
    text = re.sub(r"```.*?```", "", book(), flags=re.S)
    dotted = re.findall(r"`(\w+)\.(\w+)(?:: [^`]*)?`", text)
    valued = re.findall(r"`(\w+): \S[^`…]*`", text)
    named = {name for section, name in dotted if section in top and name != "py"} | {*valued}
    assert len(named) > 20
    assert named - fields == set()


def test_the_documents_quote_messages_of_the_code() -> None:
    """Row by row of the last table: each run of words between what is filled in."""
    text = (PROJECT / "docs" / "troubleshooting.md").read_text()
    table = text.partition("| it says | it means |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.*?`) \|", table, re.M)
    known = strings()

    def occurs(fragment: str) -> bool:
        """As it is, or with one of its words filled in."""
        words = [re.escape(word) for word in fragment.split()]
        variants = [[*words[:i], r"\S*\{…\}\S*", *words[i + 1 :]] for i in range(1, len(words))]
        variants.append([r"\{…\}\S*", *words[1:]])
        return fragment in known or any(re.search(" ".join(each), known) for each in variants)

    example = (
        r"…|\b[XNM]\b|\bGPU-|(?:CUDA )?\b\d+\b(?: s\b)?|\(.*?\)|'[^']*'|portaudio\.h"
        r"|Address already in use| beside torch|requires"
    )
    fragments = {
        part.strip(" :,;")
        for row in rows
        for quoted in re.findall(r"`([^`]+)`", row)
        for part in re.split(example, quoted)
        if len(part.strip(" :,;").split()) > 1
    }
    assert len(rows) > 30
    assert sorted(fragment for fragment in fragments if not occurs(fragment)) == []


def test_messages_name_the_program_that_is_there_to_be_typed() -> None:
    """`doit` in a clone, `comfy-machine` from a wheel: `program_files.PROGRAM`."""
    named = []
    for file in (PROJECT / "tasks").rglob("*.py"):
        tree = ast.parse(file.read_text())
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        named += [
            f"{file.relative_to(PROJECT)}:{node.lineno}: {node.value}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
            and id(node) not in documentation and re.search(r"\bdoit\b.", node.value)
        ]  # fmt: skip
    assert named == [], "write {PROGRAM}"
