"""Workflows as they are stored."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_machine.services.jobs.stored_workflow import pack, unpack

NODE = {"class_type": "A", "inputs": {"text": "ä"}}


@pytest.mark.parametrize("extra", [{}, {"extra_pnginfo": {"workflow": {"nodes": []}}}])
@pytest.mark.parametrize(
    "graph", [{"1": NODE}, {"prompt": NODE}, {"prompt": NODE, "extra_data": NODE}]
)
def test_both_come_back(graph: dict[str, Any], extra: dict[str, Any]) -> None:
    assert unpack(pack(graph, extra)) == (graph, extra)


def test_a_graph_alone_is_stored_as_it_is() -> None:
    assert unpack(b'{"1": {"class_type": "A"}}') == ({"1": {"class_type": "A"}}, {})
    with pytest.raises(ValueError, match="no workflow"):
        unpack(b"[]")
