"""Progress, from ComfyUI's own messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfy_machine.services.gateway.job_progress import LARGEST, JobProgress, Preview, preview_of


def heard(*messages: tuple[str, Any], nodes: int = 4) -> JobProgress:
    it = JobProgress(nodes)
    for kind, data in messages:
        it.hear({"type": kind, "data": data})
    return it


def test_nodes_and_their_steps_count() -> None:
    it = heard(
        ("execution_start", {}),
        ("execution_cached", {"nodes": ["1"]}),
        ("executing", {"node": "2"}),
        ("executing", {"node": "3"}),
        ("progress", {"node": "3", "value": 5, "max": 10}),
    )
    assert it.snapshot() == {
        "value": 0.625,
        "nodes_done": 2,
        "nodes_total": 4,
        "current_node": "3",
        "step": 5,
        "steps": 10,
    }
    it.hear({"type": "executing", "data": {"node": None}})
    assert it.share == 0.75


def test_the_state_of_all_nodes_counts_too() -> None:
    it = heard(
        (
            "progress_state",
            {
                "nodes": {
                    "1": {"state": "finished", "value": 1, "max": 1},
                    "2": {"state": "running", "value": 1, "max": 4},
                    "3": {"state": "pending"},
                    "4": None,
                }
            },
        )
    )
    assert (it.node, it.share) == ("2", 0.3125)
    it.hear({"type": "progress_state", "data": {"nodes": {"2": {"state": "finished"}}}})
    assert (it.node, it.share) == ("", 0.5)


def test_it_is_never_more_than_all() -> None:
    executed = [("executed", {"node": str(n), "output": {"text": [n]}}) for n in range(9)]
    it = heard(*executed, ("progress", {"node": "9", "value": 9, "max": 3}), nodes=2)
    assert it.share == 1.0
    assert it.snapshot()["nodes_total"] == 9
    assert it.outputs["8"] == {"text": [8]}


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": "progress"},
        {"type": "progress", "data": []},
        {"type": "progress", "data": {"value": "1", "max": None}},
        {"type": "execution_cached", "data": {"nodes": 1}},
        {"type": "progress_state", "data": {"nodes": []}},
        {"type": "executed", "data": {"node": None}},
        {"type": "progress", "data": {"node": "1", "value": 1, "max": 0}},
    ],
)
def test_what_says_nothing_changes_nothing(message: Any) -> None:
    it = JobProgress(3)
    it.hear(message)
    assert it.share == 0.0


def test_previews_of_both_kinds() -> None:
    def number(value: int) -> bytes:
        return value.to_bytes(4, "big")

    about = json.dumps({"node_id": "7", "image_type": "image/webp"}).encode()
    assert preview_of(number(1) + number(2) + b"x") == Preview("", "image/png", b"x")
    assert preview_of(number(1) + number(1) + b"x") == Preview("", "image/jpeg", b"x")
    with_node = number(4) + number(len(about)) + about + b"x"
    assert preview_of(with_node) == Preview("7", "image/webp", b"x")
    for nonsense in (
        b"",
        number(1),
        number(3) + number(1) + b"text",
        number(4) + number(99) + b"{}",
        number(4) + number(2) + b"[]",
        number(4) + number(2) + b"{x",
    ):
        assert preview_of(nonsense) is None


def test_the_last_preview_is_kept_if_it_is_a_small_picture() -> None:
    def message(content: bytes, kind: str) -> bytes:
        about = json.dumps({"node_id": "7", "image_type": kind}).encode()
        return b"".join((b"\0\0\0\4", len(about).to_bytes(4, "big"), about, content))

    it = JobProgress(1)
    assert (it.preview, it.shown_at) == (None, 0.0)
    for content in (b"a", b"b"):
        it.see(message(content, "image/png"))
    for other in (message(b"c" * LARGEST, "image/png"), message(b"<svg/>", "image/svg+xml"), b""):
        it.see(other)
    assert it.preview == Preview("7", "image/png", b"b")
    assert it.shown_at > 0
    assert it.share == 0.0
