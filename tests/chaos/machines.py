"""A machine of the simulator that is damaged again and again, and checked after each time."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from tests.forge import Forge, Repository
from tests.rig import SIMULATOR, Ended, Rig, free_ports


class Stuck(Exception):  # noqa: N818  reads as what happened
    """What did not come right; the text says in which step, and what doit printed."""


class Victim:
    """A machine with one instance and one custom node that has two versions."""

    def __init__(self, folder: Path, cache: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._node = _node(folder / "forge")
        self._version = 1
        self.rig = Rig(
            folder,
            {
                "workspace": "ws",
                "comfyui": {"path": str(SIMULATOR)},
                "python": {"torch": "none"},
                "custom_nodes": [{"url": self._node.url, "ref": "v1", "env": {"A": "1"}}],
                "instances": {"gpus": 1, "cpu_only": True, "port_start": free_ports(1)},
                "health": {"server": False},
            },
            env={"XDG_CACHE_HOME": str(cache), "npm_config_cache": str(cache / "npm")},
        )
        self.rig.doit()
        self.upgrade()
        self.rig.doit()
        # What an instance and a node write themselves.
        settings = self.rig.comfyui / "custom_nodes" / "alpha" / "settings.json"
        settings.write_text("{}")

    @property
    def machine(self) -> Path:
        return self.rig.layout.machine

    def upgrade(self) -> None:
        """Ask for the node's other version."""
        self._version = 3 - self._version
        self.rig.spec["custom_nodes"][0]["ref"] = f"v{self._version}"

    def settle(self) -> None:
        """doit makes it right; verify finds nothing, or repair and doit mend what it finds; then
        nothing is left to do. Raises Stuck."""
        run = self._doit()
        if run.code:
            self._repair(run)
        found = self._doit("verify")
        if found.code:
            self._repair(found)
            found = self._doit("verify")
            if found.code:
                raise Stuck(f"verify finds more after repair:\n{found.output}")
        noop = self._doit()
        if noop.code or noop.executed:
            raise Stuck(f"doit isn't done ({sorted(noop.executed)}):\n{noop.output}")
        if not self.rig.healthy():
            raise Stuck(f"no instance answers, and doit found nothing to do:\n{noop.output}")

    def close(self) -> None:
        for folder, folders, _ in os.walk(self.rig.folder):
            for name in folders:
                os.chmod(f"{folder}/{name}", 0o700)  # noqa: PTH101
        self.rig.close()
        shutil.rmtree(self.rig.folder, ignore_errors=True)

    def _repair(self, before: Ended) -> None:
        """What the message says; `before` must name it. Then doit must succeed."""
        if drop := re.search(r"drop them: (git -C .+)", before.output):
            subprocess.run(drop[1], shell=True, check=True)
            before = self._doit()
            if not before.code:
                return
        if before.failed and "doit repair" not in before.output:
            raise Stuck(f"no message names doit repair:\n{before.output}")
        repair = self._doit("repair")
        run = self._doit()
        if run.code:
            raise Stuck(
                f"before:\n{before.output}\nrepair:\n{repair.output}\nthen doit:\n{run.output}"
            )

    def _doit(self, *arguments: str) -> Ended:
        run = self.rig.doit(*arguments, code=None)
        if re.search(r"^Traceback|^\w*Error: ", run.output, re.M):
            raise Stuck(f"doit {' '.join(arguments)} ends in an exception:\n{run.output}")
        return run


def _node(folder: Path) -> Repository:
    node = Forge(folder).node("alpha", {"requirements.txt": "packaging==24.0\n", "install.py": ""})
    node.git("tag", "v1")
    node.commit({"requirements.txt": "packaging==24.1\n", "notes": "new"}, tag="v2")
    return node
