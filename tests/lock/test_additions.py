"""What is asked in addition is resolved beside what is settled, and comes to the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_machine.engine.run import Run
from comfy_machine.lock import additions, packages, resolution
from comfy_machine.lock.resolver import Problem
from comfy_machine.spec import Lock, PythonSet
from tests.lock.conflicts import test_inquiry
from tests.lock.conflicts.test_inquiry import declared, read
from tests.wheels import wheel

links = test_inquiry.links
Grow = Callable[..., PythonSet | None]


@pytest.fixture
def asked_uv() -> list[bool]:
    """Whether uv was asked, each time that a set grew."""
    return []


@pytest.fixture
def grow(
    tmp_path: Path, links: Path, monkeypatch: pytest.MonkeyPatch, asked_uv: list[bool]
) -> Grow:
    """Settle what one set of nodes asks for, then what another does; None: asked anew as a whole.

    What grew is held against a whole resolve. A name that ends with _ is an optional node's.
    """
    (tmp_path / "uv.toml").write_text("no-index = true\n")
    monkeypatch.setenv("UV_CONFIG_FILE", str(tmp_path / "uv.toml"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("UV_FIND_LINKS", "UV_INDEX"):
        monkeypatch.delenv(name, raising=False)

    def problem(lines: dict[str, str], before: PythonSet | None, *overrides: str) -> Problem:
        machine = declared(tmp_path, links, list(lines), overrides)
        machine = machine.model_copy(update={"lock": Lock(python=before)})
        asked = [read(machine, tmp_path, name, text) for name, text in lines.items()]
        return Problem(Run(machine), tuple(asked), "none", before, tmp_path / "log")

    def attempt(first: dict[str, str], then: dict[str, str], *overrides: str) -> PythonSet | None:
        asked = problem(first, None)
        solution = resolution.solve(asked)
        before = PythonSet(
            asked=packages.locked_form(asked.run, asked.asked),
            packages=solution.packages,
            left_out=solution.left_out,
        )
        (tmp_path / "log").unlink()
        asked = problem(then, before, *overrides)
        found = additions.extend(asked)
        asked_uv.append((tmp_path / "log").exists())
        if found:
            assert found.asked == packages.locked_form(asked.run, asked.asked)
            assert found.packages == resolution.solve(asked).packages
        return found

    return attempt


def versions(python: PythonSet | None) -> dict[str, str | None]:
    assert python is not None
    return {name: each.version for name, each in python.packages.items() if name[0] not in "pr"}


def test_what_is_met_already_asks_nobody(grow: Grow, asked_uv: list[bool]) -> None:
    first = {"a": "array<2"}
    found = grow(first, {**first, "b": "array>=1 / array", "c": 'image; python_version < "3"'})
    assert versions(found) == {"array": "1.5"}
    assert asked_uv == [False]


def test_what_is_new_comes_beside_what_is_there_and_nothing_moves(grow: Grow) -> None:
    first = {"a": "array<2"}
    assert versions(grow(first, {**first, "b": "image<2"})) == {"array": "1.5", "image": "1.5"}
    first = {"a": "array>=2"}
    found = grow(first, {**first, "b": "voice"})
    assert versions(found) == {"array": "2.1", "sound": "1.0", "voice": "1.0"}


def test_a_node_that_was_left_out_stays_so_and_asks_for_nothing(grow: Grow) -> None:
    first = {"a": "array<2", "late_": "array>=2 / image"}
    found = grow(first, {**first, "b": "image<2"})
    assert versions(found) == {"array": "1.5", "image": "1.5"}
    assert found is not None
    assert set(found.left_out) == {"late"}


@pytest.mark.parametrize(
    ("then", "overrides"),
    [
        ({"a": "array<2", "b": "voice"}, ()),
        ({"b": "array"}, ()),
        ({"a": "array>=1", "b": "image"}, ()),
        ({"a": "array<2", "b": "image"}, ("image<2",)),
        ({"a": "array<2", "b": "image --hash=sha256:" + 64 * "0"}, ()),
        ({"a": "array<2", "b": "nowhere"}, ()),
        ({"a": "array<2", "b": "opencv-python"}, ()),
    ],
    ids=["conflict", "gone", "changed", "overridden", "hashes", "not to be had", "of a family"],
)
def test_anything_else_is_resolved_as_a_whole(
    grow: Grow, links: Path, then: dict[str, str], overrides: tuple[str, ...]
) -> None:
    wheel(links, "opencv-python", "4.0")
    assert grow({"a": "array<2"}, then, *overrides) is None
