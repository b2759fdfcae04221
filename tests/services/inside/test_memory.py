"""ComfyUI's own modules plan with the instance's part of the memory; nothing else sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

import comfy_machine
from comfy_machine.host.pm2 import apps
from comfy_machine.host.python import pth_hook
from comfy_machine.services.inside.memory import Share

GB = 1 << 30
V1 = "4:memory:/docker/abc\n1:cpu:/\n0::/\n"
V2 = "0::/pods/abc\n"
SHIM = Path(comfy_machine.__file__).parent / "services" / "shim.py"

ASKS = "import psutil\nTOTAL = psutil.virtual_memory().total\n"
"""A module that asks while it is imported, as comfy/model_management.py does."""
COMFYUI = {
    "main.py": """
import json, os, sys
import library
import comfy.planning
sys.path.append(os.path.join(os.path.dirname(__file__), "custom_nodes"))
import pack
import psutil
seen = psutil.virtual_memory()
assert seen.available <= seen.total and seen.free <= seen.available, seen
assert seen.used == seen.total - seen.available and 0 < seen.percent <= 100, seen
print(json.dumps({
    "main": seen.total,
    "comfy": comfy.planning.TOTAL,
    "pack": pack.TOTAL,
    "pack, through comfy": comfy.planning.ask(),
    "library": library.TOTAL,
    "after library's question": psutil.virtual_memory().total,
}))
""",
    "comfy/planning.py": f"{ASKS}def ask():\n    return psutil.virtual_memory().total\n",
    "custom_nodes/pack.py": ASKS,
}


def host(root: Path, cgroup: str, files: dict[str, str], own: int = 0) -> Path:
    """A /proc and a /sys/fs/cgroup; `own` is what the process holds, in bytes."""
    status = f"Name:\tpython\nVmRSS:\t  999 kB\nRssAnon:\t {own // 1024} kB\nVmSwap:\t 0 kB\n"
    written = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in (written | {"proc/self/cgroup": cgroup, "proc/self/status": status}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def first(limit: int, usage: int, cached: int = 0) -> dict[str, str]:
    """A cgroup of version 1."""
    return {
        "memory.limit_in_bytes": f"{limit}\n",
        "memory.usage_in_bytes": f"{usage}\n",
        "memory.stat": f"cache 1\ninactive_file 7\ntotal_inactive_file {cached}\n"
        "total_active_file 0\n",
    }


def second(limit: int | str, usage: int, cached: int = 0) -> dict[str, str]:
    return {
        "memory.max": f"{limit}\n",
        "memory.current": f"{usage}\n",
        "memory.stat": f"anon 5\ninactive_file 0\nactive_file {cached}\n",
    }


def at(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}


@pytest.mark.parametrize(
    ("cgroup", "files", "total", "available"),
    [
        ("", {}, 16, 15),
        (V1, at("memory/docker/abc", first(8 * GB, 3 * GB, GB)), 4, 3),
        # The kernel's number for no limit.
        (V1, at("memory/docker/abc", first(9223372036854771712, 3 * GB)), 16, 15),
        # A container sees its own as the top.
        (V1, at("memory", first(8 * GB, 7 * GB)), 4, 1),
        # Pages of files are taken back when they are needed.
        (V1, at("memory", first(8 * GB, 7 * GB, GB)), 4, 2),
        (V2, at("pods/abc", second(8 * GB, 7 * GB, GB)), 4, 2),
        (V2, at("pods/abc", second(8 * GB, 3 * GB)), 4, 3),
        (V2, at("pods/abc", second("max", 3 * GB)), 16, 15),
        # The one around it has more, but others have used that up.
        (V2, at("pods", second(20 * GB, 19 * GB)) | at("pods/abc", second(8 * GB, 0)), 4, 1),
    ],
)
def test_two_instances_have_half_of_what_the_cgroups_leave(
    tmp_path: Path, cgroup: str, files: dict[str, str], total: int, available: int
) -> None:
    share = Share(2, root=host(tmp_path, cgroup, files, own=GB))
    assert share.of(32 * GB, 30 * GB) == (total * GB, available * GB)


def test_no_more_is_free_than_the_host_has(tmp_path: Path) -> None:
    assert Share(2, root=host(tmp_path, "", {}, own=GB)).of(32 * GB, 2 * GB)[1] == 2 * GB


def test_a_part_that_is_used_up_leaves_nothing(tmp_path: Path) -> None:
    assert Share(8, root=host(tmp_path, "", {}, own=5 * GB)).of(32 * GB, 20 * GB) == (4 * GB, 0)


def test_the_part_is_never_more_than_the_limit_of_an_instance(tmp_path: Path) -> None:
    assert Share(2, 10 * GB, root=host(tmp_path, "", {})).of(32 * GB, 30 * GB)[0] == 10 * GB


@pytest.mark.parametrize("instances", [1, 2, 3, 8])
@pytest.mark.parametrize("own", [0, GB // 8, GB // 2])
def test_together_they_never_plan_with_more_than_there_is(
    tmp_path: Path, instances: int, own: int
) -> None:
    held = own * instances
    group = at("pods/abc", second(6 * GB, held))
    total, available = Share(instances, root=host(tmp_path, V2, group, own)).of(24 * GB, 20 * GB)
    assert total * instances <= 6 * GB
    assert available * instances <= 6 * GB - held


@pytest.fixture
def comfyui(tmp_path: Path) -> Path:
    for name, text in COMFYUI.items():
        (tmp_path / "ComfyUI" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ComfyUI" / name).write_text(text)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(pth_hook.LINE)
    (tmp_path / "site" / "library.py").write_text(ASKS)
    return tmp_path / "ComfyUI"


def run(comfyui: Path, share: str | None) -> subprocess.CompletedProcess[str]:
    told = {} if share is None else {apps.MEMORY: share}
    site = comfyui.parent / "site"
    return subprocess.run(
        [
            *(sys.executable, "-I", SHIM, "--report", comfyui.parent / "reports", "--"),
            *(sys.executable, comfyui / "main.py"),
        ],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(site), **told},
        capture_output=True,
        text=True,
        check=True,
    )


def seen(comfyui: Path, share: str | None) -> dict[str, Any]:
    ran = run(comfyui, share)
    assert not ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_comfyui_sees_its_part_while_nodes_and_libraries_see_the_host(comfyui: Path) -> None:
    whole = psutil.virtual_memory().total
    found = seen(comfyui, "1000")
    part = found["main"]
    assert part <= whole / 1000
    assert found == {
        "main": part,
        "comfy": part,
        "pack": whole,
        "pack, through comfy": part,
        "library": whole,
        "after library's question": part,
    }


def test_a_workspace_behind_a_symlink_is_the_same(comfyui: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(comfyui)
    assert seen(link, "1000") == seen(comfyui, "1000")


def test_with_the_setting_off_all_see_the_host(comfyui: Path) -> None:
    assert set(seen(comfyui, None).values()) == {psutil.virtual_memory().total}


def test_an_error_of_ours_costs_comfyui_nothing(comfyui: Path) -> None:
    ran = run(comfyui, "many")
    assert json.loads(ran.stdout)["main"] == psutil.virtual_memory().total
    assert "ValueError" in ran.stderr
