"""Which line of a log is to blame, in logs as they really are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from comfy_machine.host.pm2 import log_evidence
from tests.rig import SIMULATOR

FRAMES = 'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\n    import x\n'
STARTING = "Device: cpu\nPython version: 3.12.3\nComfyUI version: 0.3.64\n"
MISSING = "ModuleNotFoundError: No module named 'x'"
CAUGHT = (
    f"{FRAMES}ValueError: only this node\n\n"
    "Cannot import /w/custom_nodes/odd module for custom nodes: only this node\n\n"
    "Import times for custom nodes:\n   0.0 seconds (IMPORT FAILED): /w/custom_nodes/odd\n\n"
)
PORT = (
    f"{FRAMES}OSError: [Errno 98] error while attempting to bind on address ('127.0.0.1', 8188): "
    "address already in use\n"
)
GROUP = """  + Exception Group Traceback (most recent call last):
  |   File "a.py", line 1, in <module>
  |     raise ExceptionGroup("all", errors)
  | ExceptionGroup: all (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "a.py", line 2, in inner
    |     int("x")
    | ValueError: invalid literal
    +------------------------------------
"""
NEVER_RAISED = """  + Exception Group Traceback (most recent call last):
  |   File "a.py", line 1, in <module>
  | ExceptionGroup: all (1 sub-exception)
  +-+---------------- 1 ----------------
    | ValueError: made, not raised
    +------------------------------------
"""
CHAINED = (
    f"{FRAMES}KeyError: 'first'\n\nDuring handling of the above exception, another exception "
    f"occurred:\n\n{FRAMES}RuntimeError: second\n"
)
MEMORY = (
    f"{FRAMES}torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
    "If reserved memory is large, set PYTORCH_CUDA_ALLOC_CONF\n"
)
USAGE = "usage: main.py [-h] [--listen [IP]]\nmain.py: error: unrecognized arguments: --nope\n"
DRIVER = f"{FRAMES}RuntimeError: Found no NVIDIA driver on your system. Please check that\n"
SEGFAULT = (
    "Fatal Python error: Segmentation fault\n\nCurrent thread 0x00007f (most recent call first):\n"
    '  File "a.py", line 3 in f\nExtension modules: numpy (total: 1)\n'
)
STOPPED = "\nStopped server\n"
AT = "2026-11-29 08:36:55 "
JOB = f"!!! Exception during processing !!! no\n{FRAMES}ValueError: a job's\n\n"


def tag(text: str, level: str = "INFO") -> str:
    """A record as ComfyUI logs it since 0.28: a coloured tag before its first line."""
    bold = "" if level in ("INFO", "DEBUG") else "\x1b[1m"
    return f"{bold}\x1b[32m[{level}]\x1b[0m {text}\n"


def tagged(text: str, level: str = "INFO") -> str:
    return "".join(tag(line, level) for line in text.splitlines())


TAGGED_CAUGHT = tag(f"{FRAMES}ValueError: only this node\n", "WARNING") + tag(
    "Cannot import /w/custom_nodes/odd module for custom nodes: only this node", "WARNING"
)
TAGGED_JOB = tag("!!! Exception during processing !!! CUDA out of memory.", "ERROR") + tag(
    f"{FRAMES}torch.OutOfMemoryError: CUDA out of memory.\n", "ERROR"
)
RETRIED = "Warning: Ran out of memory when regular VAE decoding, retrying with tiled VAE decoding."
OOM_JOB = (
    f"!!! Exception during processing !!! CUDA out of memory.\n{FRAMES}"
    "torch.OutOfMemoryError: CUDA out of memory.\n\nGot an OOM, unloading all loaded models.\n"
)
TAKEN = "Port 8188 is already in use on address 127.0.0.1. Please close the other application."


@pytest.mark.parametrize(
    ("log", "line", "text"),
    [
        (STARTING + FRAMES + MISSING, 7, MISSING),
        (STARTING + FRAMES + MISSING + "\n" + STOPPED, 7, MISSING),
        (STARTING + FRAMES + MISSING + "\nPM2      | App [x] exited\n", 7, MISSING),
        (USAGE, 2, "main.py: error: unrecognized arguments: --nope"),
        (STARTING + CAUGHT + PORT, 17, PORT.splitlines()[-1]),
        (STARTING + CAUGHT + "bye\n", 14, "bye"),
        (STARTING + CAUGHT + "no token, can't go on", 14, "no token, can't go on"),
        (GROUP, 9, "ValueError: invalid literal"),
        (NEVER_RAISED, 3, "ExceptionGroup: all (1 sub-exception)"),
        (CHAINED, 11, "RuntimeError: second"),
        (MEMORY, 4, MEMORY.splitlines()[3]),
        (DRIVER, 4, DRIVER.splitlines()[3]),
        (SEGFAULT, 1, "Fatal Python error: Segmentation fault"),
        (FRAMES + MISSING + "\n" + "no luck\n" * 30, 34, "no luck"),
        (FRAMES + "SyntaxError: '(' was never closed\n", 4, "SyntaxError: '(' was never closed"),
        ("a\n" + FRAMES, 4, "import x"),
        ("10%|#\r20%|##\rCUDA error: no kernel image\n", 1, "CUDA error: no kernel image"),
        (JOB + "end", 7, "end"),
        (FRAMES + "KeyboardInterrupt\n" + STARTING + "no luck", 8, "no luck"),
        (FRAMES + "KeyboardInterrupt\n", 4, "KeyboardInterrupt"),
        (tagged(STARTING) + TAGGED_CAUGHT + FRAMES + MISSING, 13, MISSING),
        (tagged(STARTING) + TAGGED_CAUGHT + "bye\n", 10, "bye"),
        (tagged(STARTING) + tag(TAKEN, "ERROR"), 4, TAKEN),
        (tag("CUDA error: seen, and gone on after", "WARNING") + "bye\n", 2, "bye"),
        (RETRIED + "\nthe end", 2, "the end"),
        (tag(RETRIED, "WARNING") + "the end", 2, "the end"),
        (OOM_JOB + "Prompt executed in 2 s\nterminated\n", 9, "terminated"),
        (AT + JOB + AT + "end", 7, "end"),
        (AT + "Starting server\n" + AT + FRAMES + MISSING + "\n", 5, MISSING),
        (AT + tag(TAKEN, "ERROR"), 1, TAKEN),
        ("\x1b[31mRuntimeError: red\x1b[0m\n", 1, "RuntimeError: red"),
        ("clone https://me:secret@host/x failed\n", 1, "clone https://***@host/x failed"),
    ],
)  # fmt: skip
def test_the_line_to_blame_is_found_with_its_number(
    tmp_path: Path, log: str, line: int, text: str
) -> None:
    file = tmp_path / "comfyui-gpu0.log"
    file.write_text(log)
    found = log_evidence.of(file, says_why=True)
    assert found == log_evidence.Blame("comfyui-gpu0.log", line, text)
    assert str(found) == f"comfyui-gpu0.log:{line}: {text}"


@pytest.mark.parametrize(
    "log",
    [
        STARTING + "Starting server\nTo see the GUI go to: http://127.0.0.1:8188\n",
        tagged(STARTING) + tag("### Loading: a pack with a large banner"),
        tagged(STARTING) + TAGGED_JOB + tag("Prompt executed"),
        FRAMES + MISSING + "\n" + "got prompt\n" * 30,
    ],
)
def test_what_comfyui_writes_while_all_is_well_is_never_to_blame(tmp_path: Path, log: str) -> None:
    file = tmp_path / "log"
    file.write_text(log)
    assert log_evidence.of(file, says_why=True) is None


def test_the_last_line_is_evidence_only_of_an_end_that_says_why(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("no licence\n")
    assert log_evidence.of(file) is None
    assert log_evidence.of(file, says_why=True) == log_evidence.Blame("log", 1, "no licence")


def test_only_the_part_of_the_process_itself_is_read_also_after_a_rotation(tmp_path: Path) -> None:
    file = tmp_path / "log"
    texts = [FRAMES + "ValueError: first\n", FRAMES + "ValueError: second\n", "third\n"]
    file.write_text("".join(texts))
    first, second = len(texts[0]), len(texts[0] + texts[1])
    inode = file.stat().st_ino

    def told(part: log_evidence.Part) -> tuple[int, str] | None:
        found = log_evidence.of(file, part)
        return (found.line, found.text) if found else None

    assert told(log_evidence.Part(inode, 0, first)) == (4, "ValueError: first")
    assert told(log_evidence.Part(inode, first, second)) == (8, "ValueError: second")
    assert told(log_evidence.Part(inode, second)) is None, "an earlier process raised"
    assert told(log_evidence.Part(inode + 1, second, first)) == (4, "ValueError: first")


def test_numbers_are_those_of_the_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "long.log"
    file.write_text("x" * 99 + "\n" + "step\n" * 400_000 + FRAMES + MISSING + "\n")
    assert log_evidence.of(file) == log_evidence.Blame("long.log", 400_005, MISSING)


@pytest.mark.parametrize("content", [b"", b"\n\n", None])
def test_a_log_that_says_nothing_has_nothing_to_blame(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "log").write_bytes(content)
    assert log_evidence.of(tmp_path / "log", says_why=True) is None


def test_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"\xff\xfe\x00\x1b[\n" * 10)
    assert log_evidence.of(tmp_path / "log", says_why=True) is not None


def started(folder: Path, *flags: str) -> str:
    """What the simulator's log says in the end when it is started with these flags."""
    with (folder / "log").open("wb") as log:
        ended = subprocess.run(
            [sys.executable, SIMULATOR / "main.py", *flags],
            stdout=log, stderr=log, timeout=60, cwd=folder, env={"SIMULATE_GPU": "0"},
        )  # fmt: skip
    assert ended.returncode
    found = log_evidence.of(folder / "log", says_why=ended.returncode == 1)
    return found.text if found else ""


def test_real_starts_that_fail_are_explained(tmp_path: Path) -> None:
    assert "unrecognized arguments: --nope" in started(tmp_path, "--nope")
    base = ["--base-directory", str(tmp_path), "--user-directory", str(tmp_path)]
    (tmp_path / "custom_nodes").mkdir()
    assert started(tmp_path, *base).startswith("RuntimeError: Found no NVIDIA driver")
    (tmp_path / "custom_nodes" / "leaves.py").write_text("import sys; sys.exit('no licence')\n")
    assert started(tmp_path, *base, "--cpu") == "no licence"
