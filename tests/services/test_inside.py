"""What runs inside a process: in the one that the shim names, and never at its cost."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from comfy_machine.host.comfyui import load_report
from comfy_machine.host.python import pth_hook
from comfy_machine.services.shim import ENTRY
from tests.rig import PROJECT

SHIM = PROJECT / "tasks" / "services" / "shim.py"
LOADER = """
import asyncio, logging, os, traceback
NODE_CLASS_MAPPINGS = {}
async def load_custom_node(module_path, ignore=set(), module_parent="custom_nodes"):
    try:
        exec(open(module_path).read(), {"__name__": "pack", "nodes": __import__("nodes")})
        return True
    except Exception as e:
        logging.warning(traceback.format_exc())
        return False
async def init_extra_nodes():
    for name in sorted(os.listdir("packs")):
        await load_custom_node(os.path.join("packs", name))
"""
MAIN = "import asyncio, nodes\nasyncio.run(nodes.init_extra_nodes())\nprint('it served')\n"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An environment with nothing but the line in it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    pth_hook.write(next((tmp_path / "env" / "lib").glob("python*/site-packages")))
    return tmp_path / "env" / "bin" / "python"


@pytest.fixture
def run(tmp_path: Path, python: Path) -> Run:
    """Run main.py of a small ComfyUI with these packs, as an instance is run."""
    (tmp_path / "packs").mkdir()
    (tmp_path / "nodes.py").write_text(LOADER)
    (tmp_path / "main.py").write_text(MAIN)

    def run(
        packs: dict[str, str], *options: str, report: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        for name, text in packs.items():
            (tmp_path / "packs" / name).write_text(text)
        folder = report or tmp_path / "reports"
        return subprocess.run(
            [sys.executable, "-I", str(SHIM), "--report", str(folder), *options, "--",
             str(python), "main.py"],
            cwd=tmp_path, env={"PATH": os.environ["PATH"], **env}, timeout=30, text=True,
            capture_output=True,
        )  # fmt: skip

    return run


def read(tmp_path: Path) -> load_report.Report:
    found = load_report.newest(tmp_path / "reports")
    assert found
    return found


def test_each_pack_is_told_as_it_is_loaded(run: Run, tmp_path: Path) -> None:
    ended = run({"a": "x = 1", "b": "1/0", "c": "import os; os._exit(3)"})
    assert ended.returncode == 3
    report = read(tmp_path)
    assert report.packs["a"].loaded
    assert str(report.packs["b"].error) == "ZeroDivisionError: division by zero"
    assert (report.unfinished, report.complete) == ("c", False)
    assert [f.stat().st_mode & 0o777 for f in (tmp_path / "reports").iterdir()] == [0o600]


def test_a_program_that_starts_itself_again_by_exec_reports_anew(run: Run, tmp_path: Path) -> None:
    again = (
        "import os, sys\n"
        "if not os.environ.get('AGAIN'):\n"
        "    os.environ['AGAIN'] = '1'\n"
        "    os.execv(sys.executable, [sys.executable, *sys.argv])\n"
    )
    ended = run({"a": "x = 1", "b": again})
    assert "it served" in ended.stdout
    assert len(list((tmp_path / "reports").iterdir())) == 1, "its pid and start time stay"
    report = read(tmp_path)
    assert report.complete
    assert [name for name, pack in report.packs.items() if pack.loaded] == ["a", "b"]


def test_children_report_nothing(run: Run, tmp_path: Path) -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, 'main.py'], check=True)\n"
    fork = "import os\nif os.fork() == 0:\n    raise RuntimeError('in the child')\nos.wait()\n"
    text = "import os\nif 'DEEPER' not in os.environ:\n    os.environ['DEEPER'] = '1'\n    "
    run({"a": text + child.replace("\n", "\n    "), "b": fork})
    report = read(tmp_path)
    assert len(list((tmp_path / "reports").iterdir())) == 1
    assert report.complete
    assert all(pack.loaded for pack in report.packs.values())


def test_without_the_shim_the_line_does_nothing(run: Run, tmp_path: Path, python: Path) -> None:
    run({"a": "x = 1"})
    before = sorted((tmp_path / "reports").iterdir())
    env = {"COMFY_MACHINE_REPORT": str(tmp_path / "reports"), "COMFY_MACHINE_INSIDE": str(ENTRY)}
    for pid in ({}, {"COMFY_MACHINE_INSIDE_PID": "1"}):
        said = subprocess.run(
            [python, "main.py"], cwd=tmp_path, env={**env, **pid}, check=True, capture_output=True
        )
        assert (said.stdout, said.stderr) == (b"it served\n", b"")
    assert sorted((tmp_path / "reports").iterdir()) == before


@pytest.mark.parametrize(
    "harm",
    [
        "import nodes; nodes.NODE_CLASS_MAPPINGS = None",
        "import sys; [setattr(m, 'errors', None) for n, m in sys.modules.items() "
        "if n == 'comfy_machine_inside.report']",
        "import os; [os.close(int(f)) for f in os.listdir('/proc/self/fd') "
        "if os.path.exists(f'/proc/self/fd/{f}') "
        "and os.readlink(f'/proc/self/fd/{f}').endswith('.jsonl')]",
        "import threading; threading.enumerate = None",
    ],
)
def test_what_harms_our_module_costs_the_report_alone(run: Run, tmp_path: Path, harm: str) -> None:
    ended = run({"a": harm, "b": "1/0", "c": "x = 1"})
    assert ended.stdout == "it served\n"
    assert ended.returncode == 0
    assert not read(tmp_path).settled, "what it doesn't know it doesn't tell"


def test_a_full_disk_puts_the_blame_on_nobody(run: Run, tmp_path: Path) -> None:
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"
    assert run({"a": full, "b": "x = 1"}).returncode == 0
    assert read(tmp_path) == load_report.Report()


def test_a_report_that_can_not_be_written_is_no_matter(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = run({"a": "x = 1"}, report=tmp_path / "file" / "reports")
    assert (ended.returncode, ended.stdout) == (0, "it served\n")
    assert "NotADirectoryError" in ended.stderr


def test_a_comfyui_with_another_loader_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "nodes.py").write_text(LOADER.replace("load_custom_node", "load_pack"))
    assert run({"a": "1/0"}).stdout == "it served\n"
    assert not read(tmp_path).attached


def test_the_newest_reports_are_kept(run: Run, tmp_path: Path) -> None:
    for _ in range(7):
        run({"a": "x = 1"})
    assert len(list((tmp_path / "reports").iterdir())) == 5


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00\n{}\n[]\n5\nnull\n",
        b'{"event": "begin"}\n',
        b'{"event": "end", "path": 5, "phase": "import"}\n',
        b'{"event": "asked", "path": "/never/begun", "name": 5}\n',
        b'{"event": "loaded", "classes": [1]}\n',
        b'{"event": "end", "path": "/x", "phase": "import", "ok": 1, "seconds": "long"}\n',
        b'{"event": "end", "path": "/x", "phase": "import", "ok": 0, "seconds": 1, "error": {}}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_rubbish_in_a_report_raises_nothing_and_tells_nothing(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "1-1.jsonl"
    file.write_bytes(b'{"event": "attached", "whole": true}\n' + content)
    found = load_report.read(file)
    assert found
    assert not found.settled


def test_a_line_that_is_not_whole_yet_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "1-1.jsonl"
    file.write_bytes(b'{"event": "attached", "whole": true}\n{"event": "beg')
    found = load_report.read(file)
    assert found
    assert found.attached
    assert found.packs == {}


LOGS = """
import logging, sys
root = logging.getLogger()
root.setLevel(logging.INFO)
root.addHandler(logging.StreamHandler(sys.stdout))
root.addHandler(logging.FileHandler("own.log"))
logging.info("got prompt")
logging.info("\\nPrestartup times:\\n   0.0 seconds")
logging.info("")
print("printed")
"""


def test_log_records_have_their_time_and_what_is_written_elsewhere_has_none(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "main.py").write_text(LOGS)
    timed = run({}, COMFY_MACHINE_LOG_TIMES="yes").stdout
    at = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "
    assert re.fullmatch(
        rf"{at}got prompt\n\n{at}Prestartup times:\n   0.0 seconds\n\nprinted\n", timed
    ), timed
    plain = "got prompt\n\nPrestartup times:\n   0.0 seconds\n\n"
    assert (tmp_path / "own.log").read_text() == plain
    assert run({}).stdout == f"{plain}printed\n"
