"""The lines of a board: what is in them at every width."""

from __future__ import annotations

import time

import pytest

from comfy_machine.engine.board_lines import (
    Look,
    Row,
    columns,
    cut,
    fit,
    lines,
    look,
    printable,
)
from comfy_machine.host.system.progress import Progress

WIDTHS = [*range(40, 125), 160, 200]
FILE = {"name": "checkpoints/a-name-of-some-length-v1.safetensors",
        "bytes": 2_600_000_000, "bytes_done": 1_200_000_000}  # fmt: skip
MODELS = Look("models", 72, 46.2, 84, "1.2 GB of 2.6 GB, 17.9 MB/s, 0 of 1 files", [FILE])
ENVIRONMENT = Look("environment", 3723, 58, 61, "1.8 GB of 3.2 GB, 42.0 MB/s, 215 packages")
SCRIPT = Look("generation:scripts", 5, None, None, "the script of ComfyUI-Manager: /long/path")


def drawn(*looks: Look, width: int = 80, height: int = 24, footer: str = "") -> list[str]:
    return ["".join(text for text, _ in line) for line in lines(looks, footer, width, height, "⠋")]


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal_and_time_is_in_each(width: int) -> None:
    shown = drawn(MODELS, ENVIRONMENT, SCRIPT, width=width, footer="12 of 31 steps, 1m 12s")
    assert max(map(columns, shown)) <= width
    (models,) = [line for line in shown if line.startswith("⠋ models")]
    left = width >= 50
    assert models.endswith("1m 24s left  1m 12s" if left else " 1m 12s")
    (environment,) = [line for line in shown if line.startswith("⠋ environ")]
    assert environment.endswith("1m 1s left   1h 2m" if left else "   1h 2m")
    assert " 58 %" in environment
    assert next(line for line in shown if line.startswith("⠋ gen")).endswith("5s")
    assert shown[-1].strip() == "12 of 31 steps, 1m 12s"


@pytest.mark.parametrize("width", [each for each in WIDTHS if each >= 60])
def test_bytes_and_rate_are_always_there(width: int) -> None:
    text = "\n".join(drawn(MODELS, ENVIRONMENT, width=width))
    for part in ("1.2 GB of 2.6 GB, 17.9 MB/s", "1.8 GB of 3.2 GB, 42.0 MB/s", "safetensors"):
        assert part in text
    assert ("━" in text) == (width >= 100)


@pytest.mark.parametrize("height", [1, 2, 3, 5, 24])
def test_a_board_is_no_higher_than_the_terminal(height: int) -> None:
    looks = [Look(f"nodes:n{n}", n, None, None, "") for n in range(30)]
    shown = drawn(*looks, height=height, footer="0 of 30 steps")
    assert len(shown) <= max(height, 2)
    assert shown[-1].strip() == "0 of 30 steps"
    assert height < 3 or "more" in shown[-2]


def test_names_that_take_two_columns_or_would_move_the_cursor_stay_in_their_place() -> None:
    wide = Look("nodes:漢字漢字漢字漢字漢字漢字漢字", 1, None, None, "\x1b[2J\n" + "漢" * 60)
    for width in WIDTHS:
        (line,) = [line for line in drawn(wide, width=width) if line.startswith("⠋")]
        assert columns(line) == width
        assert "\x1b" not in line
    assert printable("a\x1b\tb") == "a  b"


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [("abc", 5, "abc"), ("abcdef", 4, "abc…"), ("漢字", 3, "漢…"), ("abc", 0, ""), ("abc", 1, "…")],
)
def test_a_text_is_cut_at_its_end(text: str, width: int, shown: str) -> None:
    assert cut(text, width) == shown
    assert columns(fit(text, width)) == width


def test_a_file_is_cut_at_its_start() -> None:
    assert fit("checkpoints/x.safetensors", 14, from_start=True) == "…x.safetensors"
    assert fit("x.safetensors", 14, from_start=True) == "x.safetensors "


def test_time_left_is_from_the_share_or_from_the_last_run() -> None:
    row = Row("lock", 100.0, "resolves", usual=30.0)
    assert look(row, 110.0).left == 20
    assert look(row, 129.5).left is None, "soon, or never"
    row.percent = 25.0
    assert look(row, 110.0).left == 30
    assert look(row, 110.0).told() == "… lock: 25 %, resolves (10s, about 30s left)"


def test_files_tell_their_bytes_rate_and_time_left() -> None:
    progress = Progress("models")
    progress.begin("loras/a.safetensors", 4_000_000)
    progress.advance("loras/a.safetensors", 1_000_000)
    progress.add("loras/b.safetensors", 4_000_000)
    row = Row("models", time.monotonic() - 2, progress=progress)
    shot = look(row, time.monotonic())
    assert shot.percent == 12.5
    assert shot.detail.startswith("1.0 MB of 8.0 MB, ")
    assert shot.detail.endswith("/s, 0 of 2 files")
    assert shot.left is not None
    assert [each["name"] for each in shot.files] == ["loras/a.safetensors"]
