"""The inputs of jobs that run on other machines: which a workflow names, and how long they stay."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from comfy_machine.services.jobs import shared_inputs
from comfy_machine.services.jobs.shared_inputs import SharedInputs, with_names
from comfy_machine.spec.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


@pytest.fixture
def inputs(layout: Layout) -> SharedInputs:
    return SharedInputs(layout)


def write(layout: Layout, name: str, content: str) -> str:
    """Its digest."""
    path = layout.inputs / name
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name("part")
    part.write_text(content)
    part.replace(path)
    return digest(content)


def digest(content: str) -> str:
    return blake3(content.encode()).hexdigest()


def workflow(*values: Any) -> dict[str, Any]:
    return {"1": {"class_type": "X", "inputs": {str(n): each for n, each in enumerate(values)}}}


def test_values_that_name_inputs_are_noted(layout: Layout, inputs: SharedInputs) -> None:
    one, two = write(layout, "a.png", "1"), write(layout, "sub/b.png", "2")
    noted = inputs.note(workflow("a.png", "sub/b.png [input]", "a.png", ["1", 0], 5, None))
    assert noted == {"a.png": one, "sub/b.png [input]": two}
    assert inputs.note({"1": {"class_type": "X"}, "2": {"class_type": "X", "inputs": {}}}) == {}


def test_nothing_else_is(layout: Layout, inputs: SharedInputs, tmp_path: Path) -> None:
    for name in ("a.png", "hello", ".uploads/x.part", ".hidden.png"):
        write(layout, name, "1")
    (tmp_path / "secret.txt").write_text("secret")
    (layout.inputs / "link.txt").symlink_to(tmp_path / "secret.txt")
    values = ("hello", "none.png", "a.png [output]", "../../secret.txt", "link.txt", "", "\0.png",
              str(tmp_path / "secret.txt"), ".uploads/x.part", ".hidden.png", "x" * 2000 + ".png",
              "a.png/b.png", "sub")  # fmt: skip
    assert inputs.note(workflow(*values)) == {}


def test_bytes_stay_though_the_name_gets_others(layout: Layout, inputs: SharedInputs) -> None:
    one = write(layout, "a.png", "1")
    assert inputs.note(workflow("a.png")) == {"a.png": one}
    two = write(layout, "a.png", "2")
    (kept,) = [inputs.get(one)]
    assert kept
    assert kept.read_text() == "1"
    assert not inputs.holds("a.png", one)
    assert inputs.holds("a.png", two)
    assert inputs.note(workflow("a.png")) == {"a.png": two}
    assert inputs.get("../a.png") is None


def arrived(inputs: SharedInputs, content: str) -> str:
    inputs.folder.mkdir(parents=True, exist_ok=True)
    part = inputs.folder / "x.part"
    part.write_text(content)
    inputs.take(part, digest(content))
    return digest(content)


def test_what_arrives_gets_its_name_if_nothing_else_has_it(
    layout: Layout, inputs: SharedInputs
) -> None:
    one = arrived(inputs, "1")
    assert inputs.place("sub/a.png [input]", one) == "sub/a.png [input]"
    assert (layout.inputs / "sub" / "a.png").read_text() == "1"
    assert inputs.place("sub/a.png", one) == "sub/a.png", "it is there already"
    two = arrived(inputs, "2")
    assert inputs.place("sub/a.png", two) == f"{two}.png"
    assert (layout.inputs / "sub" / "a.png").read_text() == "1"
    assert (layout.inputs / f"{two}.png").read_text() == "2"


@pytest.mark.parametrize("name", ["../x.png", "/etc/x.png", "a/../../x.png", ".kept/x.png"])
def test_nothing_is_placed_elsewhere(inputs: SharedInputs, name: str) -> None:
    one = arrived(inputs, "1")
    with pytest.raises(OSError, match="leads elsewhere"):
        inputs.place(name, one)


def test_what_no_job_names_goes_after_a_while(
    layout: Layout, inputs: SharedInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, other = arrived(inputs, "1"), arrived(inputs, "2")
    inputs.sweep({known})
    assert inputs.get(other)
    monkeypatch.setattr(shared_inputs, "SPARED", -1.0)
    inputs.sweep({known})
    assert inputs.get(known)
    assert inputs.get(other) is None


def test_an_old_file_that_is_noted_now_is_no_old_one(layout: Layout, inputs: SharedInputs) -> None:
    one, long_ago = write(layout, "a.png", "1"), time.time() - 1e6
    os.utime(layout.inputs / "a.png", (long_ago, long_ago))
    inputs.note(workflow("a.png"))
    inputs.sweep(())
    assert inputs.get(one)


def test_only_inputs_of_nodes_get_other_names() -> None:
    graph = {
        "a.png": {"class_type": "a.png", "inputs": {"a.png": "a.png", "x": ["a.png", 0]}},
        "2": {"class_type": "X"},
    }
    assert with_names(graph, {"a.png": "b.png"}) == {
        "a.png": {"class_type": "a.png", "inputs": {"a.png": "b.png", "x": ["a.png", 0]}},
        "2": {"class_type": "X"},
    }
