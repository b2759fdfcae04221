"""The text of a new machine file, of what only some commands put into it."""

from __future__ import annotations

import json
from pathlib import Path

from comfy_machine.commands.shared.new_machine_file import Contents, Hardware, Line
from comfy_machine.spec import load


def test_workflows_are_named_with_their_notes(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"1": {"class_type": "A", "inputs": {}}}))
    hardware = Hardware((), "", "no driver")
    text = Contents(workflows=[Line("a.json", ["first", "second"])]).text(hardware)
    assert '\nworkflows:\n  # first\n  # second\n  - "a.json"\n' in text
    file = tmp_path / "machine.yaml"
    file.write_text(text)
    assert [each.name for each in load(file, {}).workflows] == ["a"]
    assert "workflows:" not in Contents().text(hardware)
