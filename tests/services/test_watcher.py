"""The watcher's look at one instance: what that started is known to be its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from comfy_machine.host.comfyui import symptoms
from comfy_machine.host.pm2 import apps, log_rotation
from comfy_machine.host.pm2.app_processes import Census
from comfy_machine.host.system import files, private_folder
from comfy_machine.services.watcher import Settings, Watch, Watched
from tests.contract.client import until

SHIM = Path(apps.__file__).parents[2] / "services" / "shim.py"
STARTS_ONE = """
import os, sys, time
os.system(f"env -i nohup {sys.executable} -c 'import time; time.sleep(600)' >/dev/null 2>&1 &")
print("up", flush=True)
time.sleep(600)
"""


def test_what_hides_from_everybody_ends_with_its_instance(tmp_path: Path) -> None:
    """Without its environment and its family, only who adopted it tells whose it is."""
    private_folder.make(tmp_path)
    limits = symptoms.Limits(hung=30, job_timeout=3600, start_timeout=300)
    settings = Settings(
        tmp_path, (), None, limits, log_rotation.Rules(max_size=1, max_age=0, keep=1), True, 0.1
    )
    watched = Watch(settings, Watched(0, "comfyui-gpu0", "127.0.0.1"), Census(tmp_path, 0.0))
    marks = {apps.WORKSPACE: str(tmp_path), apps.NAME: "comfyui-gpu0", apps.PORT: "1"}
    instance = subprocess.Popen(
        [sys.executable, "-I", SHIM, "--report", tmp_path, "--", sys.executable, "-c", STARTS_ONE],
        env=os.environ | marks,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert instance.stdout is not None
        assert instance.stdout.readline() == "up\n"
        process = psutil.Process(instance.pid)
        (helper,) = until(
            lambda: [each for each in process.children() if each.environ() == {}], 10, "it"
        )
        watched.step()
        assert apps.runs(helper)
        instance.kill()
        instance.wait()
        assert apps.runs(helper)
        watched.step()
        assert not apps.runs(helper)
    finally:
        instance.kill()
        instance.communicate()
        files.remove(private_folder.folder(tmp_path))
