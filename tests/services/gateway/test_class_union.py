"""One may choose what any instance has."""

from __future__ import annotations

from typing import Any

from comfy_machine.services.gateway.class_union import union


def loader(*models: Any, **more: Any) -> Any:
    return {"Load": {"input": {"required": {"model": [[*models], {"tooltip": "t"}], **more}}}}


def test_options_of_all_instances() -> None:
    (about,) = union([loader("a", "b"), loader("b", "c"), loader()]).values()
    assert about["input"]["required"]["model"] == [["a", "b", "c"], {"tooltip": "t"}]
    newer = [
        {"Load": {"input": {"optional": {"model": ["COMBO", {"options": options, "x": 1}]}}}}
        for options in (["a"], ["b", {"key": 1}])
    ]
    (about,) = union(newer).values()
    expected = ["COMBO", {"options": ["a", "b", {"key": 1}], "x": 1}]
    assert about["input"]["optional"]["model"] == expected


def test_classes_of_any_instance_described_as_by_the_first() -> None:
    first = {"A": {"input": {"required": {"x": ["INT", {"max": 1}]}}, "output": ["X"]}}
    other = {"A": {"input": {"required": {"x": ["INT", {"max": 2}]}}, "output": []}, "B": {}}
    assert union([first, None, "no", other]) == {**first, "B": {}}
    several: list[Any] = [
        {"Load": None},
        {"Load": {"input": 1}},
        {"Load": {"input": {"required": [1]}}},
        {"Load": {"input": {"required": {"model": []}}}},
    ]
    for strange in several:
        assert union([loader("a"), strange]) == loader("a")
        union([strange, loader("a")])
