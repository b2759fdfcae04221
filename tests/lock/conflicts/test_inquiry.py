"""Conflicts told whole: all of them, exactly their lines, and overrides that were tried."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_machine.engine.run import Run
from comfy_machine.host.system.failure import Failure
from comfy_machine.lock import requirements, resolution
from comfy_machine.lock.requirements import Request
from comfy_machine.lock.resolver import Problem
from comfy_machine.spec import Machine, load
from tests.wheels import wheel

Solve = Callable[..., resolution.Solution]


@pytest.fixture
def links(tmp_path: Path) -> Path:
    """A folder of wheels that holds what is always asked for, and a few more."""
    folder = tmp_path / "links"
    for name, version in {"pip": "1.0", "requests": "1.0"}.items():
        wheel(folder, name, version)
    for name in ("array", "image"):
        for version in ("1.0", "1.5", "2.0", "2.1"):
            wheel(folder, name, version)
    wheel(folder, "voice", "1.0", ("sound",))
    wheel(folder, "sound", "1.0", ("array>=2",))
    wheel(folder, "both", "1.0", ("array>=2", "image>=2"))
    return folder


@pytest.fixture
def solve(tmp_path: Path, links: Path, monkeypatch: pytest.MonkeyPatch) -> Solve:
    """Resolve what nodes ask for, each by its lines; a name that ends with _ is optional."""
    (tmp_path / "uv.toml").write_text("no-index = true\n")
    monkeypatch.setenv("UV_CONFIG_FILE", str(tmp_path / "uv.toml"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("UV_FIND_LINKS", "UV_INDEX"):
        monkeypatch.delenv(name, raising=False)

    def attempt(*overrides: str, **lines: str) -> resolution.Solution:
        machine = declared(tmp_path, links, list(lines), overrides)
        asked = [read(machine, tmp_path, name, text) for name, text in lines.items()]
        log = tmp_path / "log"
        return resolution.solve(Problem(Run(machine), tuple(asked), "none", None, log))

    return attempt


def declared(folder: Path, links: Path, names: list[str], overrides: tuple[str, ...]) -> Machine:
    file = folder / "machine.yaml"
    entries = "".join(
        f"  - {{url: https://localhost/{name.rstrip('_')}, optional: {name.endswith('_')!s}}}\n"
        for name in names
    )
    file.write_text(
        f"workspace: ws\ncomfyui: {{}}\npython: {{torch: none, find_links: ['{links}'], "
        f"overrides: {list(overrides)}}}\ncustom_nodes:\n{entries.lower()}"
    )
    return load(file, {})


def read(machine: Machine, folder: Path, name: str, text: str) -> Request:
    """`text` has ` / ` between its lines; a name that ends with _ is that of an optional node."""
    place = folder / name
    place.mkdir(exist_ok=True)
    (place / "requirements.txt").write_text("\n".join(text.split(" / ")) + "\n")
    node = next(each for each in machine.custom_nodes if each.name == name.rstrip("_"))
    return requirements.read_checkout(node, place)


def refusal(solve: Solve, *overrides: str, **lines: str) -> str:
    with pytest.raises(Failure) as caught:
        solve(*overrides, **lines)
    assert max(map(len, str(caught.value).splitlines())) < 1000
    return str(caught.value)


def proposed(text: str) -> list[str]:
    """The overrides that a message proposes."""
    (found,) = re.findall(r"python\.overrides: \[(.*?)\]", text)
    return [each.strip("' ") for each in found.split(",")]


def blamed(text: str) -> set[str]:
    """Who asks for what, as a message says it."""
    return {f"{name} {line}" for name, line in re.findall(r"node (\w+) requires '([^']+)'", text)}


def test_exactly_the_lines_in_conflict_are_told_of_many_that_mention_the_package(
    solve: Solve,
) -> None:
    many = {f"n{number}": "array / image" for number in range(12)}
    said = refusal(solve, **many, old="image / array<2", more="array", new="array>=2")
    assert blamed(said) == {"old array<2", "new array>=2"}
    assert "(requirements.txt:2)" in said
    assert proposed(said) == ["array<2"]
    solve("array<2", **many, old="image / array<2", more="array", new="array>=2")


def test_everyone_on_a_side_of_a_conflict_is_named(solve: Solve) -> None:
    said = refusal(
        solve, a="array<2", b="array", c="array<2", d="array>=2", e="array==2.1", f="array==1.5"
    )
    assert blamed(said) == {"a array<2", "c array<2", "d array>=2", "e array==2.1", "f array==1.5"}


def test_a_conflict_of_many_is_no_line_without_end(solve: Solve) -> None:
    said = refusal(solve, **{f"n{number}": "array<2" for number in range(30)}, new="array>=2")
    assert len(blamed(said)) == 31
    assert max(map(len, said.splitlines())) < 200


def test_all_independent_conflicts_are_told_at_once_with_overrides_that_settle_them_together(
    solve: Solve,
) -> None:
    nodes = {"a": "array<2", "b": "array>=2", "c": "image<2", "d": "image==2.1", "e": "voice"}
    said = refusal(solve, **nodes)
    assert "packages can't be resolved, for 2 reasons:" in said
    assert blamed(said) >= {"a array<2", "b array>=2", "c image<2", "d image==2.1"}
    assert "these together would solve them" in said
    assert set(proposed(said)) == {"array<2", "image<2"}
    solve(*proposed(said), **nodes)


def test_a_node_that_most_of_many_conflicts_have_in_common_is_named(solve: Solve) -> None:
    said = refusal(solve, bad="array<2 / image<2 / nowhere", b="array>=2", c="image==2.1")
    assert "custom node bad is in 3 of these" in said
    assert "optional: true" in said
    assert "of these" not in refusal(solve, a="array<2", b="array>=2", c="image<2", d="image==2.1")


def test_who_depends_on_whom_in_between_is_told(solve: Solve) -> None:
    said = refusal(solve, a="array<2", b="voice")
    assert "node b requires 'voice' (requirements.txt:1), which needs array through sound" in said
    assert proposed(said) == ["array<2"]


def test_one_that_is_in_two_conflicts_is_settled_by_two_overrides(solve: Solve) -> None:
    nodes = {"a": "array<2 / image<2", "b": "both"}
    said = refusal(solve, **nodes)
    assert blamed(said) == {"a array<2", "a image<2", "b both"}
    solve(*proposed(said), **nodes)


def test_a_package_that_is_not_there_is_told_beside_a_conflict(solve: Solve) -> None:
    said = refusal(solve, a="array<2", b="array>=2", c="nowhere>=2", d="image>=9")
    assert "for 3 reasons" in said
    assert "node c requires 'nowhere>=2' (requirements.txt:1), which isn't available: " in said
    assert "solve the others: python.overrides" in said
    assert set(proposed(said)) == {"array<2", "image"}


def test_the_fewest_optional_nodes_leave_and_none_that_is_in_no_conflict(solve: Solve) -> None:
    solution = solve(a_="array<2", b_="voice", c_="array", d_="array>=1.5")
    assert set(solution.left_out) == {"b"}
    said = solution.left_out["b"]
    assert blamed(said) == {"a array<2", "b voice"}
    assert "to keep it, set python.overrides: ['array<2']" in said
    assert solution.packages["array"].version == "1.5"
    one = solve(a_="array>=2", b_="array<2 / image<2", c_="image>=2", d_="array")
    assert set(one.left_out) == {"b"}, "one of three, which ends both conflicts"


def test_an_optional_node_leaves_before_one_that_must_stay_is_overridden(solve: Solve) -> None:
    solution = solve(a="array<2", b_="array>=2", c="image")
    assert set(solution.left_out) == {"b"}


def test_what_can_not_be_had_for_an_optional_node_is_no_matter_of_the_lock(solve: Solve) -> None:
    solution = solve(a="array", b_="nowhere", c_="image>=9")
    assert solution.left_out == {}
    assert set(solution.unavailable) == {"b", "c"}
    assert solution.retry == ()


def test_blame_follows_what_was_asked_not_words(solve: Solve, tmp_path: Path) -> None:
    away = f"lost @ git+file://{tmp_path}/gone.git"
    wheel(tmp_path / "links", "uv", "1.0")
    wheel(tmp_path / "links", "git", "1.0")
    solution = solve(a_="uv / git", b_=away)
    assert set(solution.unavailable) == {"b"}
    assert solution.retry == ("b",), "a repository that can't be reached is tried by every run"
    said = refusal(solve, a="uv / git", b=away)
    assert blamed(said) == {f"b {away}"}
    assert "which can't be reached" in said


def test_a_dropped_index_line_is_named_where_a_package_can_not_be_found(solve: Solve) -> None:
    said = refusal(solve, a="--extra-index-url https://me:pass@host/simple / nowhere", b="array")
    assert (
        "its line --extra-index-url https://***@host/simple (requirements.txt:1) is ignored" in said
    )
    assert "python.extra_index_urls" in said
