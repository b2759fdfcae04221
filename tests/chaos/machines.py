"""A machine of the simulator that something befalls again and again, and that must come right."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.kinds import kind_of, names_below
from tests.conftest import uv_cache
from tests.forge import Forge, Repository
from tests.rig import SIMULATOR, Ended, Rig, free_ports

ADVICES = 3
"""Messages that are followed one after the other: two kinds of damage may have one each."""


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
            env={
                "XDG_CACHE_HOME": str(cache),
                "UV_CACHE_DIR": uv_cache(),
                "npm_config_cache": str(cache / "npm"),
            },
        )

    def make(self) -> None:
        """Make it, with two generations, and a file that a node wrote."""
        self.rig.doit()
        self.upgrade()
        self.rig.doit()
        (self.rig.comfyui / "custom_nodes" / "alpha" / "settings.json").write_text("{}")

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
        run = self.doit()
        if run.code:
            self._repair(run)
        found = self.doit("verify")
        if found.code:
            self._repair(found)
            found = self.doit("verify")
            if found.code:
                raise Stuck(f"verify finds more after repair:\n{found.output}")
        noop = self.doit()
        if noop.code or noop.executed:
            raise Stuck(f"doit isn't done ({sorted(noop.executed)}):\n{noop.output}")
        if not self.rig.healthy():
            raise Stuck(f"no instance answers, and doit found nothing to do:\n{noop.output}")
        if unknown := [name for name in names_below(self.machine) if kind_of(name) is None]:
            raise Stuck(f"no row in kinds.py for {', '.join(unknown[:5])}")

    def doit(self, *arguments: str) -> Ended:
        """Run doit. Raises Stuck when it ends in an exception."""
        run = self.rig.doit(*arguments, code=None)
        if re.search(r"^Traceback|^\w*Error: |unexpected \w+: ", run.output, re.M):
            raise Stuck(f"doit {' '.join(arguments)} ends in an exception:\n{run.output}")
        return run

    def close(self) -> None:
        for folder, folders, _ in os.walk(self.rig.folder):
            for name in folders:
                if not (path := Path(folder, name)).is_symlink():
                    path.chmod(0o700)
        self.rig.close()
        shutil.rmtree(self.rig.folder, ignore_errors=True)

    def _repair(self, found: Ended) -> None:
        """Do what the messages say, which must help. Raises Stuck."""
        said = [found.output]
        for _ in range(ADVICES):
            if drop := re.search(r"drop them: (git -C .+)", found.output):
                subprocess.run(drop[1], shell=True, check=True)
            elif found.failed and "doit repair" not in found.output:
                break
            else:
                said.append(self.doit("repair").output)
            found = self.doit()
            if not found.code:
                return
            said.append(found.output)
        raise Stuck("what the messages say doesn't help:\n" + "\n".join(said))


class Victims:
    """One machine at a time; the next is made when one didn't come right."""

    RENEW_AFTER = 40
    """Cases on one machine: damage that nothing looks at adds up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._victim: Victim | None = None
        self._cases = 0

    def next(self) -> Victim:
        if self._cases >= self.RENEW_AFTER:
            self.drop()
        if self._victim is None:
            self._victim = self.fresh()
            self._victim.make()
        self._cases += 1
        return self._victim

    def fresh(self) -> Victim:
        """A machine that isn't made yet, instead of the last one."""
        self.drop()
        return Victim(self._folder / "machine", self._folder / "cache")

    def drop(self) -> None:
        self._cases = 0
        if self._victim:
            self._victim.close()
            self._victim = None


@contextmanager
def machines(folder: Path) -> Iterator[Victims]:
    found = Victims(folder)
    try:
        yield found
    finally:
        found.drop()


def _node(folder: Path) -> Repository:
    node = Forge(folder).node("alpha", {"requirements.txt": "packaging==24.0\n", "install.py": ""})
    node.git("tag", "v1")
    node.commit({"requirements.txt": "packaging==24.1\n", "notes": "new"}, tag="v2")
    return node
