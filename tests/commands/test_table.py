"""The table of status: columns that don't fit, and why not, below their row."""

from __future__ import annotations

import pytest

from comfy_machine.commands.shared import table

HEADINGS = "instance GPU memory port pid uptime restarts queue health".split()
WHY = "it hasn't answered for 42 s, doing nothing; doit logs comfyui-gpu0; then doit restart"
ROW = ["comfyui-gpu0", "0 NVIDIA H200 (20.1 GiB of 139.8 GiB)", "53.3 MB", "8188", "31600",
       "2h 10m", "0", "3", "unhealthy", WHY]  # fmt: skip
FINE = ["comfyui-gpu1", "1", "53.3 MB", "8189", "31601", "2h 10m", "0", "0", "healthy", ""]


def shown(width: int | None) -> list[str]:
    found = table.lines([*HEADINGS, "why not"], [ROW, FINE], width)
    return [f"{line.before}{line.state}{line.after}".rstrip() for line in found]


@pytest.mark.parametrize("width", [*range(60, 200, 7), 200, 250])
def test_it_fits_and_nothing_is_cut_off(width: int) -> None:
    lines = shown(width)
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for cell in [*ROW, *FINE]:
        assert " ".join(cell.split()) in text
    assert [line for line in lines if line.startswith("comfyui-gpu0")]


def test_why_not_is_the_first_to_fold_and_then_what_matters_least() -> None:
    wide = shown(None)
    assert len(wide) == 4
    assert wide[0].endswith("why not")
    assert wide[2].endswith(f"unhealthy  {WHY}")
    assert shown(150)[3] == f"    {WHY}"
    narrow = shown(60)
    assert narrow[0].split() == ["instance", "port", "pid", "uptime", "queue", "health"]
    assert narrow[3].startswith("    GPU 0 NVIDIA H200 (20.1 GiB of 139.8 GiB), memory")


def test_the_state_stands_alone_for_its_colour() -> None:
    states = [line.state for line in table.lines([*HEADINGS, "why not"], [ROW, FINE], 60)]
    assert [state for state in states if state] == ["unhealthy", "healthy"]
