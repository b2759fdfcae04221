"""Where classes come from, by lists in ComfyUI-Manager's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_machine.imports import node_catalogue
from comfy_machine.imports.node_catalogue import NodeCatalogue, key
from comfy_machine.imports.node_sources import repositories, sources
from comfy_machine.spec.node_uses import NodeUse

GITHUB = "https://github.com/"
CORE = frozenset(["KSampler", "Resize"])


def lists(folder: Path, *, stars: bool = True) -> Path:
    nodes = [
        {"id": "Popular", "reference": f"{GITHUB}A/Popular", "files": []},
        {"id": "plain", "reference": f"{GITHUB}b/plain.git"},
        {"title": "no reference"}, "rubbish",
    ]  # fmt: skip
    classes: dict[str, Any] = {
        f"{GITHUB}A/Popular": [["Both", "Only", "Same"], {"nodename_pattern": r"\(pop\)$"}],
        f"{GITHUB}B/Plain": [["Both", "Two", "Same"], {"nodename_pattern": "("}],
        f"{GITHUB}c/third": [["Two", "Same"], {}],
        "https://git.example.com/d/Fourth.git": [["Elsewhere"], {}],
        f"{GITHUB}comfyanonymous/ComfyUI": [["KSampler"], {}],
        "rubbish": 3,
    }
    (folder / node_catalogue.NODES).write_text(json.dumps({"custom_nodes": nodes}))
    (folder / node_catalogue.CLASSES).write_text(json.dumps(classes))
    if stars:
        counted = {"A/Popular": 500, "B/Plain": 100, "c/third": 99}
        about = {f"{GITHUB}{name}": {"stars": each} for name, each in counted.items()}
        (folder / node_catalogue.STARS).write_text(json.dumps(about))
    return folder


@pytest.fixture
def catalogue(tmp_path: Path) -> NodeCatalogue:
    return node_catalogue.read(lists(tmp_path))


def found(catalogue: NodeCatalogue, *workflow: NodeUse | str) -> dict[str, tuple[str, str | None]]:
    each_use = [each if isinstance(each, NodeUse) else NodeUse("1", each) for each in workflow]
    return {
        each.use.kind: (each.repository, each.evidence)
        for each in sources(each_use, CORE, catalogue)
    }


def test_comfyuis_own_are_left_out_unless_a_node_says_that_it_is_anothers(
    catalogue: NodeCatalogue,
) -> None:
    mine = NodeUse("2", "Resize", repository="me/mine")
    core = NodeUse("3", "Anything", registry_id="comfy-core")
    assert found(catalogue, "KSampler", "Resize", mine, core) == {"Resize": ("me/mine", "id")}


def test_what_a_node_says_of_itself_comes_first(catalogue: NodeCatalogue) -> None:
    by_id = NodeUse("1", "Only", registry_id="plain")
    unknown_id = NodeUse("2", "Elsewhere", registry_id="never-heard-of")
    assert found(catalogue, by_id, unknown_id) == {
        "Only": ("b/plain", "id"),
        "Elsewhere": ("https://git.example.com/d/fourth", "class"),
    }


def test_a_class_of_one_repository_is_its(catalogue: NodeCatalogue) -> None:
    assert found(catalogue, "Only", "Mask (pop)") == {
        "Only": ("a/popular", "class"), "Mask (pop)": ("a/popular", "class"),
    }  # fmt: skip


def test_what_the_lists_prefer_settles_a_tie_of_the_one_with_the_most_stars(tmp_path: Path) -> None:
    file = lists(tmp_path) / node_catalogue.CLASSES
    classes = json.loads(file.read_text())
    classes[f"{GITHUB}A/Popular"][1]["preemptions"] = ["Same"]
    classes[f"{GITHUB}B/Plain"][1]["preemptions"] = ["Both", "Two"]
    classes[f"{GITHUB}c/third"][1]["preemptions"] = ["Two"]
    file.write_text(json.dumps(classes))
    catalogue = node_catalogue.read(tmp_path)
    assert found(catalogue, "Same")["Same"] == ("a/popular", "precedence")
    assert found(catalogue, "Both")["Both"] == ("a/popular", "popularity")
    assert found(catalogue, "Two")["Two"] == ("", None), "two are preferred"


def test_further_lists_of_the_same_repository_count_as_much(tmp_path: Path) -> None:
    further = lists(tmp_path) / node_catalogue.FURTHER
    further.mkdir(parents=True)
    classes = {f"{GITHUB}n/New": [["Only", "Novel"], {}]}
    nodes = [{"id": "novel", "reference": f"{GITHUB}n/New"}]
    (further / node_catalogue.CLASSES).write_text(json.dumps(classes))
    (further / node_catalogue.NODES).write_text(json.dumps({"custom_nodes": nodes}))
    stars = {f"{GITHUB}n/New": {"stars": 400}}
    (further / node_catalogue.STARS).write_text(json.dumps(stars))
    catalogue = node_catalogue.read(tmp_path)
    assert found(catalogue, "Novel")["Novel"] == ("n/new", "class")
    assert found(catalogue, "Only")["Only"] == ("", None)
    assert catalogue.ids["novel"] == "n/new"


def test_a_blank_at_the_end_of_a_class_makes_no_difference(catalogue: NodeCatalogue) -> None:
    assert found(catalogue, "Only ")["Only "] == ("a/popular", "class")


def test_the_rest_of_the_workflow_settles_a_tie(catalogue: NodeCatalogue) -> None:
    other = NodeUse("1", "Else", registry_id="plain")
    assert found(catalogue, "Both", other)["Both"] == ("b/plain", "others")
    assert found(catalogue, "Both", "Only", other)["Both"][1] == "popularity"


def test_popularity_is_a_guess_and_only_where_it_is_clear(catalogue: NodeCatalogue) -> None:
    assert found(catalogue, "Both") == {"Both": ("a/popular", "popularity")}
    (guess,) = sources([NodeUse("1", "Both")], CORE, catalogue)
    assert guess.is_guess
    assert guess.candidates == ("a/popular", "b/plain")
    assert found(catalogue, "Two") == {"Two": ("", None)}


def test_a_class_that_nobody_knows_has_no_source(catalogue: NodeCatalogue) -> None:
    assert found(catalogue, "Private") == {"Private": ("", None)}


def test_each_repository_is_needed_once(catalogue: NodeCatalogue) -> None:
    workflow = [NodeUse("1", kind) for kind in ("Only", "Elsewhere", "Mask (pop)", "Private")]
    needed = [*repositories(sources(workflow, CORE, catalogue))]
    assert needed == ["a/popular", "https://git.example.com/d/fourth"]
    assert catalogue.url("a/popular") == f"{GITHUB}A/Popular"
    assert catalogue.url("me/mine") == f"{GITHUB}me/mine"


def test_without_stars_nothing_is_guessed(tmp_path: Path) -> None:
    catalogue = node_catalogue.read(lists(tmp_path, stars=False))
    assert found(catalogue, "Both") == {"Both": ("", None)}


@pytest.mark.parametrize("text", ["[]", "3"])
def test_other_files_are_no_catalogue(tmp_path: Path, text: str) -> None:
    (lists(tmp_path) / node_catalogue.CLASSES).write_text(text)
    with pytest.raises(ValueError, match="is no list of ComfyUI-Manager"):
        node_catalogue.read(tmp_path)


@pytest.mark.parametrize(
    "url", ["https://github.com/A/b", "git@github.com:a/B.git", "https://github.com/a/b.git/"]
)
def test_a_repository_has_one_key_however_it_is_written(url: str) -> None:
    assert key(url) == "a/b"
