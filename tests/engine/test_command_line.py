"""The options of every command, and what is said of a mistyped one."""

from __future__ import annotations

import pytest
from doit.exceptions import InvalidCommand

from comfy_machine.engine.command_line import OPTIONS, split


@pytest.mark.parametrize(
    ("line", "words", "variables"),
    [
        ("", "", {}),
        ("status --json", "status --json", {}),
        ("-m a.yaml status", "status", {"machine": "a.yaml"}),
        ("status -ma.yaml", "status", {"machine": "a.yaml"}),
        ("status --machine=a=b.yaml", "status", {"machine": "a=b.yaml"}),
        ("build --locked --force", "build", {"locked": "1", "force": "1"}),
        ("-m a.yaml -m b.yaml", "", {"machine": "b.yaml"}),
        ("completion -- -m --locked", "completion -- -m --locked", {}),
        ("build locked=1 --lock", "build locked=1 --lock", {}),
    ],
)
def test_they_are_found_anywhere_and_the_other_words_stay(
    line: str, words: str, variables: dict[str, str]
) -> None:
    assert split(line.split()) == (words.split(), variables)


@pytest.mark.parametrize("line", ["-m", "status --machine", "--machine= status"])
def test_one_without_its_value_is_refused(line: str) -> None:
    with pytest.raises(InvalidCommand, match="needs a FILE"):
        split(line.split())


def test_each_is_a_variable_of_doit() -> None:
    assert [option.name for option in OPTIONS] == ["machine", "locked", "force"]
