"""`workflows` of machine.yaml: what is none is said with its line, at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.spec.conftest import Lines, Load

API = json.dumps({"1": {"class_type": "A", "inputs": {}}})
PAGE = json.dumps({"nodes": [{"id": 1, "type": "A"}], "links": []})
SAVE = "in ComfyUI, save it with Workflow > Save, or Export (API)"


@pytest.fixture
def here(folder: Path) -> Path:
    (folder / "api.json").write_text(API)
    (folder / "page (1).json").write_text(PAGE)
    (folder / "rows.json").write_text("[]")
    (folder / "image.json").write_bytes(b"\x89PNG")
    (folder / "_'s.json").write_text(API)
    return folder


def test_an_entry_is_a_path_or_says_more(here: Path, read: Load) -> None:
    found = read(
        "workflows: [api.json, 'page (1).json', {path: api.json, name: b, optional: true}]"
    ).workflows
    assert [(each.name, each.path, each.optional) for each in found] == [
        ("api", here / "api.json", False),
        ("page (1)", here / "page (1).json", False),
        ("b", here / "api.json", True),
    ]


NAMED = "can't name a workflow: give it a name of letters, digits, spaces and . _ -"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("rows.json", f".path: {{folder}}/rows.json isn't a workflow of ComfyUI: {SAVE}"),
        ("image.json", f".path: {{folder}}/image.json isn't JSON: {SAVE}"),
        (
            "no.json",
            ".path: {folder}/no.json is not there: put the workflow there, in an image as well",
        ),
        ("_'s.json", f'.path: "_\'s" {NAMED}'),
        ("{name: x}", ".path: is required"),
        ("{path: api.json, name: -x}", f".name: '-x' {NAMED}"),
        ("3", ": must be a mapping"),
    ],
)
def test_what_is_no_workflow_is_said(here: Path, lines: Lines, entry: str, expected: str) -> None:
    (said,) = lines(f"workflows:\n  - {entry}\n")
    assert said.startswith(f"machine.yaml:4: workflows[0]{expected.format(folder=here)}")


def test_two_have_two_names(here: Path, lines: Lines) -> None:
    said = lines("workflows:\n  - api.json\n  - {path: 'page (1).json', name: API}\n")
    assert said == [
        "machine.yaml:5: workflows[1].name: workflow API is also workflows[0]: give each its own "
        "name"
    ]
