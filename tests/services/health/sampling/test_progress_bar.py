"""Progress bars in logs, as tqdm 4.70 writes them to a stream that is no terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_machine.services.health.sampling import progress_bar
from comfy_machine.services.health.sampling.progress_bar import TAIL, Bar

SEVEN = "\r 30%|###   | 6/20 [00:04<00:09,  1.41it/s]\r 35%|###5  | 7/20 [00:05<00:09,  1.40it/s]"
FULL = "\r 95%|##### | 19/20 [00:13<00:00,  1.40it/s]\r100%|######| 20/20 [00:14<00:00,  1.40it/s]"
AT_SEVEN = Bar(35, "7/20")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (SEVEN, AT_SEVEN),
        (f"got prompt\n{SEVEN}", AT_SEVEN),
        (f"{SEVEN}\r", AT_SEVEN),
        ("\r  0%|          | 0/20 [00:00<?, ?it/s]", Bar(0, "0/20")),
        ("\r 35%|███▌      | 7/20 [00:05<00:09,  1.40it/s]", AT_SEVEN),
        ("\rKSampler:  35%|###8       | 7/20 [00:00<00:00, 42836.81it/s]", AT_SEVEN),
        ("\r 35%|\x1b[32m#######3    \x1b[0m| 7/20 [00:00<00:00, 39845.26it/s]\x1b[0m", AT_SEVEN),
        ("\r 24%|####       | 1.20k/5.00k [00:00<00:00, 29.0kit/s]", Bar(24, "1.20k/5.00k")),
        ("\r100%|#######9| 1990/2000 [00:00<00:00, 50815.58it/s]", Bar(100, "1990/2000")),
        ("\r50%|x| 1/2 |y:  35%|##    | 7/20 [00:00<00:00, 48742.49it/s]", AT_SEVEN),
        ("\n\n\r 35%|#######3    | 7/20 [00:00<00:00, 46346.40it/s]\x1b[A", AT_SEVEN),
        (FULL, None),
        (f"{FULL}\nPrompt executed in 14.20 seconds\n", None),
        (f"{SEVEN}\nProcessing interrupted\n", None),
        (f"{SEVEN}\n", None),
        (f"{SEVEN}\r{' ' * 60}\r", None),
        ("\r6it [00:00, 96129.79it/s]\r7it [00:00, 97319.60it/s]", None),
        ("loaded 35% | 7/20 of it", None),
        ("", None),
        ("\n", None),
    ],
)
def test_a_log_ends_with_a_bar_while_it_is_drawn(
    tmp_path: Path, said: str, shown: Bar | None
) -> None:
    log = tmp_path / "comfyui-gpu0.log"
    log.write_text(said, newline="")
    assert progress_bar.last(log) == shown


def test_of_a_long_log_only_the_end_is_read(tmp_path: Path) -> None:
    log = tmp_path / "comfyui-gpu0.log"
    # Cut within a letter of several bytes.
    log.write_bytes(b"x" + "é".encode() * TAIL + SEVEN.encode())
    assert progress_bar.last(log) == AT_SEVEN
    assert progress_bar.last(tmp_path / "gone.log") is None
    assert progress_bar.last(tmp_path) is None
