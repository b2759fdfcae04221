from __future__ import annotations

from pathlib import Path

import pytest

from comfy_machine.spec import SpecError, load
from tests.spec.conftest import Lines, Load

START = "workspace: ws\ncomfyui: {}\n"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "machine.yaml: is empty: begin with workspace: and comfyui:"),
        (b"# nothing\n", "machine.yaml: is empty: begin with workspace: and comfyui:"),
        (b"- a\n", "machine.yaml:1: must be a mapping: workspace: …"),
        (b"\n\njust text\n", "machine.yaml:3: must be a mapping: workspace: …"),
        (b"workspace: ws\nx: \xff\n", "machine.yaml:2: is not UTF-8: save it as UTF-8"),
        (b"a: b\n---\nc: d\n", "machine.yaml:2: isn't valid YAML: holds more than one document: "
         "keep one, without --- in between"),
        (b"a: b: c\n", "machine.yaml:1: isn't valid YAML: mapping values are not allowed in this "
         "context: check the indentation, and quote a text that holds a colon and a space"),
        (b"a:\n\tb: c\n", "machine.yaml:2: isn't valid YAML: found character that cannot start any "
         "token: indent with spaces, not tabs, and quote text that begins with @ ` or %"),
        (b"a: *nowhere\n", "machine.yaml:1: isn't valid YAML: found undefined alias"),
        (b"a: [\n" * 30, "machine.yaml:11: isn't valid YAML: nested too deeply"),
        (b"x" * 1_000_001, "machine.yaml: is larger than 1 MB, so it isn't a machine file"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_document_is_one_clear_line(
    folder: Path, content: bytes, line: str
) -> None:
    (folder / "machine.yaml").write_bytes(content)
    with pytest.raises(SpecError) as error:
        load(folder / "machine.yaml", {})
    assert str(error.value) == line


def test_a_missing_file_and_a_directory_say_what_to_do(folder: Path) -> None:
    with pytest.raises(
        SpecError, match=r"^nowhere.yaml: no such file: init writes one, or name another"
    ):
        load(Path("nowhere.yaml"), {})
    (folder / "here").mkdir()
    with pytest.raises(SpecError, match=r"^here: is a directory: name the file in it"):
        load(Path("here"), {})


def test_an_unreadable_file_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SpecError, match=r"^machine.yaml: can't be read: Permission denied"):
        load(folder / "machine.yaml", {})


def test_a_file_below_another_folder_is_named_so_that_it_is_found(folder: Path) -> None:
    with pytest.raises(SpecError, match=r"^examples/a/machine.yaml: no such file"):
        load(folder / "examples/a/machine.yaml", {})
    with pytest.raises(SpecError, match=r"^/nowhere/machine.yaml: no such file"):
        load(Path("/nowhere/machine.yaml"), {})


def test_a_byte_order_mark_and_windows_line_ends_are_fine(folder: Path) -> None:
    (folder / "machine.yaml").write_bytes(b"\xef\xbb\xbfworkspace: ws\r\ncomfyui: {}\r\n")
    assert load(Path("machine.yaml"), {}).workspace == folder / "ws"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("comfyui: {}", ["3: comfyui: is given twice, first in line 2"]),
        ("python:\n  torch: cpu\n  torch: cpu",
         ["5: python.torch: is given twice, first in line 4"]),
        ("python: &a {torch: cpu}\nhealth: *a",
         ["4: the alias *a is refused: write the value out"]),
        ("instances:\n  <<: {gpus: 2}",
         ["4: instances: merge keys (<<) are refused: write the fields out"]),
        ("python: !!python/object/apply:os.system [ls]",
         ["3: python: the tag !!python/object/apply:os.system is refused: remove it"]),
        ("python: {torch: !secret cpu}",
         ["3: python.torch: the tag !secret is refused: remove it"]),
        ("models: {folder: !!binary aGk=}",
         ["3: models.folder: the tag !!binary is refused: remove it"]),
        ("? [a, b]\n: c", ["3: a key must be a plain word"]),
        ("health:\n  ? {a: b}\n  : c", ["4: health: a key must be a plain word"]),
    ],
)  # fmt: skip
def test_yaml_that_surprises_is_refused_by_name(
    lines: Lines, text: str, expected: list[str]
) -> None:
    assert lines(text) == [f"machine.yaml:{line}" for line in expected]


def test_aliases_that_would_explode_are_refused_at_once(lines: Lines) -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 15)
    )
    found = lines(bomb)
    assert "machine.yaml:4: the alias *a0 is refused: write the value out" in found
    assert len(found) == 15 + 14  # an unknown key per line, an alias per line that has any


def test_a_list_that_holds_itself_is_refused(lines: Lines) -> None:
    assert "machine.yaml:3: the alias *a is refused: write the value out" in lines(
        "custom_nodes: &a [*a]"
    )


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("12345678", "a number"), ("0123", "a number"), ("0x1f", "a number"), ("1_000", "a number"),
        ("1.10", "a number"), ("12:30", "a number"), ("on", "true or false"),
        ("No", "true or false"), ("2024-01-01", "a date"),
    ],
)  # fmt: skip
def test_text_that_yaml_reads_as_another_type_is_to_be_quoted(
    lines: Lines, value: str, what: str
) -> None:
    node = "custom_nodes:\n  - {url: https://github.com/a/b, ref: %s}\n"
    quote = f'custom_nodes[0].ref: YAML reads {value} as {what}; quote it: "{value}"'
    assert lines(node % value) == [f"machine.yaml:4: {quote}"]
    assert not any("quote it" in line for line in lines(node % f'"{value}"'))


@pytest.mark.parametrize("number", ["0123", "0x10", "1_000", "1:30", "8188.0", '"8188"', "true"])
def test_a_number_is_written_plainly(lines: Lines, number: str) -> None:
    (line,) = lines(f"instances: {{port_start: {number}}}")
    assert line.startswith("machine.yaml:3: instances.port_start: must be a whole number")


def test_keys_are_what_they_say(read: Load) -> None:
    env = read("instances: {env: {ON: a, NO: b, Y: c}}").instances.env
    assert env == {"ON": "a", "NO": "b", "Y": "c"}


def test_a_key_without_a_value_is_as_if_it_were_not_there(read: Load) -> None:
    assert read("custom_nodes:\nmodels:\n  files:\npython: ~\n") == read()


def test_control_characters_never_reach_the_terminal(lines: Lines) -> None:
    (line,) = lines('"a\\e[2Jb\\n": 1\n')
    assert line.startswith("machine.yaml:3: a\\x1b[2Jb\\n: is not a field here")
