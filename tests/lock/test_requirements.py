"""Requirements files as they are in the wild: each line is taken, or refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from comfy_machine.lock import requirements
from comfy_machine.lock.requirements import RefusedRequirement
from comfy_machine.spec import CustomNode

NODE = CustomNode.model_construct(name="alpha", path=None)


def read(folder: Path, text: str | bytes) -> requirements.Request:
    content = text if isinstance(text, bytes) else text.encode()
    (folder / "requirements.txt").write_bytes(content)
    return requirements.read_checkout(NODE, folder)


def texts(asked: requirements.Request) -> list[str]:
    return [str(line) for line in asked.lines]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a\n" * 600_000, "requirements.txt, which is longer than 1048576 bytes"),
        ("a\n" * 6_000, "requirements.txt, which makes more than 5000 lines"),
        (f"a\n{'b' * 5_000}\n", "requirements.txt:2, which is longer than 4000 characters"),
        (f"a; {'(' * 3_000}python_version > '3'{')' * 900}\n", "requirements.txt"),
    ],
    ids=["bytes", "lines", "line", "depth"],
)
def test_a_file_without_end_is_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(RefusedRequirement, match=re.escape(why)):
        read(tmp_path, text)


def test_files_that_include_each_other_over_and_over_are_refused(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.txt").write_text(f"-r {number + 1}.txt\n" * 100)
    (tmp_path / "8.txt").write_text("a\n")
    with pytest.raises(RefusedRequirement, match="makes more than 5000 lines"):
        read(tmp_path, "-r 0.txt")


def test_many_long_lines_are_read(tmp_path: Path) -> None:
    lines = [f"{letter * 3_900}==1" for letter in "abcdefghijklmnopqrstuvwxyz"] * 8
    assert len(texts(read(tmp_path, "\n".join(lines)))) == 26


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("toml", ["toml"]),
        ("toml\r\nnumpy >= 1.2  # why\r\n", ["toml", "numpy >= 1.2"]),
        (b"\xef\xbb\xbftoml\n", ["toml"]),
        ("# only a comment\n\n", []),
        ("toml\ntoml  # again\n", ["toml"]),
        ("numpy \\\n  >= 1.2\n", ["numpy >= 1.2"]),
        ("last[extra]>=2", ["last[extra]>=2"]),
        ("a; sys_platform == 'win32'", ["a; sys_platform == 'win32'"]),
        ("git+https://host/a.git", ["git+https://host/a.git"]),
        ("-e git+https://host/a.git#egg=a", ["git+https://host/a.git#egg=a"]),
        ("a @ git+ssh://git@host/a.git@main", ["a @ git+ssh://git@host/a.git@main"]),
        ("https://host/a-1.0-py3-none-any.whl", ["https://host/a-1.0-py3-none-any.whl"]),
        (f"a==1 --hash=sha256:{'0' * 64}", [f"a==1 --hash=sha256:{'0' * 64}"]),
        ("a==1 --global-option='-x'", ["a==1"]),
    ],
)
def test_a_line_is_taken_as_pip_takes_it(
    tmp_path: Path, text: str | bytes, lines: list[str]
) -> None:
    assert texts(read(tmp_path, text)) == lines


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("-e .", "the local '-e .' (requirements.txt:2)"),
        ("./wheels/a.whl", "'./wheels/a.whl' (requirements.txt:2)"),
        (".", "the local '.' (requirements.txt:2)"),
        ("/srv/a", "the local '/srv/a'"),
        ("a @ file:///srv/a", "the local 'a @ file:///srv/a'"),
        ("opencv=4", "'opencv=4' (requirements.txt:2), which isn't a requirement"),
        ("<html>", "'<html>' (requirements.txt:2), which isn't a requirement"),
        ("-r more.txt", "'more.txt' (requirements.txt:2), which is missing"),
        ("-r ../more.txt", "'../more.txt' (requirements.txt:2), which isn't in its repository"),
        ("-r https://host/more.txt", "which isn't in its repository"),
        ("-c https://user:secret@host/more.txt", "'https://***@host/more.txt'"),
        ("a @ https://host/${TOKEN}/a.whl", "an environment variable: 'a @ https://host/"),
        ("-r requirements.txt", "requirements.txt, which includes itself"),
        ("hg+https://host/a#egg=a", "but only git repositories are supported"),
        ("git+https://user:secret@host/a", "a URL with credentials (requirements.txt:2)"),
    ],
)
def test_what_can_not_be_taken_is_refused_by_name(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(RefusedRequirement) as caught:
        read(tmp_path, f"toml\n{text}\n")
    said = str(caught.value)
    assert said.startswith("custom node alpha requires ")
    assert why in said
    assert "correct it in a fork" in said
    assert "secret" not in said


def test_files_that_a_file_names_are_read_with_their_own_line_numbers(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "base.txt").write_text("toml\n-c limits.txt\n")
    (tmp_path / "more" / "limits.txt").write_text("# a\nnumpy<2\n")
    asked = read(tmp_path, "-r more/base.txt\npackaging\n")
    assert texts(asked) == ["-c numpy<2", "toml", "packaging"]
    assert asked.lines[0].place == "more/limits.txt:2"


def test_a_line_that_would_concern_every_package_is_told_and_not_used(tmp_path: Path) -> None:
    asked = read(tmp_path, "--extra-index-url https://user:secret@host/simple\n--pre\ntoml\n")
    assert texts(asked) == ["toml"]
    assert asked.unused == [
        "--extra-index-url https://***@host/simple (requirements.txt:1)",
        "--pre (requirements.txt:2)",
    ]


def test_a_node_without_the_file_asks_for_nothing(tmp_path: Path) -> None:
    assert requirements.read_checkout(NODE, tmp_path).lines == []


def test_a_file_that_is_a_link_out_of_the_repository_is_refused(tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine host password secret\n")
    folder = tmp_path / "node"
    folder.mkdir()
    (folder / "requirements.txt").symlink_to(tmp_path / "netrc")
    with pytest.raises(RefusedRequirement) as caught:
        requirements.read_checkout(NODE, folder)
    assert "which isn't in its repository" in str(caught.value)
    assert "secret" not in str(caught.value)


PROJECT = """[project]
name = "pack"
dependencies = [
    "toml",
    "numpy>=1.2; python_version > '3'",
    "tiny @ git+https://host/tiny.git",
]
"""


def test_what_only_a_pyproject_asks_for_is_taken_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    asked = requirements.read_checkout(NODE, tmp_path)
    assert texts(asked) == [
        "toml",
        "numpy>=1.2; python_version > '3'",
        "tiny @ git+https://host/tiny.git",
    ]
    assert [line.place for line in asked.lines] == [f"pyproject.toml:{n}" for n in (4, 5, 6)]
    assert asked.lines[1].name == "numpy"


def test_where_both_files_are_the_requirements_file_counts_alone(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    assert texts(read(tmp_path, "idna\n")) == ["idna"]
    assert texts(read(tmp_path, "# nothing\n")) == []


def test_a_requirements_file_may_be_spelt_with_capitals(tmp_path: Path) -> None:
    (tmp_path / "Requirements.TXT").write_text("toml\n")
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    asked = requirements.read_checkout(NODE, tmp_path)
    assert texts(asked) == ["toml"]
    assert asked.lines[0].place == "Requirements.TXT:1"
    assert texts(read(tmp_path, "idna\n")) == ["idna"], "one that is spelt right wins"


def test_requirements_files_that_a_pyproject_names_are_read(tmp_path: Path) -> None:
    (tmp_path / "needs.txt").write_text("toml\n")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "pack"\ndynamic = ["dependencies"]\n'
        '[tool.setuptools.dynamic]\ndependencies = {file = ["needs.txt"]}\n'
    )
    asked = requirements.read_checkout(NODE, tmp_path)
    assert [(line.text, line.place) for line in asked.lines] == [("toml", "needs.txt:1")]


@pytest.mark.parametrize("text", ["[project\n", "[project]\nname = 'x'\n", "project = 1\n", ""])
def test_a_pyproject_that_says_nothing_or_nonsense_fails_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    asked = requirements.read_checkout(NODE, tmp_path)
    assert asked.lines == []
    assert len(asked.remarks) == (text == "[project\n")
    assert all("pyproject.toml can't be read" in remark for remark in asked.remarks)


def test_what_a_pyproject_asks_for_and_can_not_be_taken_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["a=1"]\n')
    with pytest.raises(RefusedRequirement) as caught:
        requirements.read_checkout(NODE, tmp_path)
    assert "custom node alpha requires 'a=1' (pyproject.toml:1)" in str(caught.value)
