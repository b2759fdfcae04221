"""A machine of the simulator that something befalls again and again, and that must come right."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.chaos.kinds import kind_of, names_below
from tests.chaos.relay import Relay, relay
from tests.conftest import uv_cache
from tests.contract.client import until
from tests.customers import NOTE
from tests.forge import Forge, Repository
from tests.model_server import model_server, noise, safetensors
from tests.rig import SIMULATOR, Ended, Rig, free_ports
from tests.servers import git_server
from tests.services.test_server import Asker

PATIENCE = 60.0
"""Seconds until the health server has seen what a run did."""
ADVICES = 3
"""Messages that are followed one after the other: two kinds of damage may have one each."""


class Stuck(Exception):  # noqa: N818  reads as what happened
    """What did not come right; the text says in which step, and what doit printed."""


class Victim:
    """A machine with one instance, a health server, one model, and one custom node that has two
    versions. The node and the model come through relays."""

    def __init__(self, folder: Path, cache: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._servers = ExitStack()
        self._node = _node(folder / "forge")
        url, _ = self._servers.enter_context(git_server(folder / "forge", ""))
        self._git = self._servers.enter_context(relay(int(url.rpartition(":")[2])))
        self._models = self._servers.enter_context(model_server())
        self._http = self._servers.enter_context(relay(self._models.server_port))
        self._version, self._offers = 1, 0
        node, port = f"http://127.0.0.1:{self._git.port}/alpha", free_ports(2)
        self.rig = Rig(
            folder,
            {
                "workspace": "ws",
                "comfyui": {"path": str(SIMULATOR)},
                "python": {"torch": "none"},
                "custom_nodes": [{"url": node, "ref": "v1", "env": {"A": "1"}}],
                "models": {"files": []},
                "instances": {"gpus": 1, "cpu_only": True, "port_start": port},
                "health": {"port": port + 1},
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

    def offer_commit(self) -> Relay:
        """Ask for a commit of the node that nobody has fetched; the relay that it comes through."""
        self._offers += 1
        tag = f"offer{self._offers}"
        self._node.commit({"offer.bin": noise(40_000, self._offers).hex()}, tag=tag)
        self.rig.spec["custom_nodes"][0]["ref"] = tag
        return self._git

    def offer_model(self, chance: random.Random) -> Relay:
        """Ask for another model; the relay that it comes through."""
        self._offers += 1
        name = f"offer{self._offers}.safetensors"
        content = safetensors(chance.randrange(1000, 300_000), self._offers)
        self._models.content = {f"/{name}": content}
        self.rig.spec["models"]["files"] = [
            {
                "target": f"loras/{name}",
                "url": f"http://127.0.0.1:{self._http.port}/{name}",
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        ]
        return self._http

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
        noop = self.doit("plan")
        if noop.code or noop.planned:
            raise Stuck(f"doit isn't done:\n{noop.output}")
        if not self.rig.healthy():
            raise Stuck(f"no instance answers, and doit found nothing to do:\n{noop.output}")
        self._await_health(noop)
        if unknown := [name for name in names_below(self.machine) if kind_of(name) is None]:
            raise Stuck(f"no row in kinds.py for {', '.join(unknown[:5])}")

    def _await_health(self, noop: Ended) -> None:
        """Health agrees that all is well. Raises Stuck."""
        ask = Asker(self.rig)
        try:
            until(lambda: ask.code("/health/comfyui") == 200, PATIENCE, "health")
            ask.until("", lambda told: told["status"] == "healthy")
        except AssertionError as error:
            raise Stuck(f"{error}; doit found nothing to do:\n{noop.output}") from None

    def doit(self, *arguments: str) -> Ended:
        """Run doit. Raises Stuck when it ends in an exception, or doesn't end."""
        try:
            run = self.rig.doit(*arguments, code=None)
        except subprocess.TimeoutExpired as error:
            raise Stuck(f"doit {' '.join(arguments)} doesn't end:\n{error.output}") from None
        if re.search(r"^Traceback|^\w*Error: |unexpected \w+: ", run.output, re.M):
            raise Stuck(f"doit {' '.join(arguments)} ends in an exception:\n{run.output}")
        return run

    def close(self) -> None:
        for folder, folders, _ in os.walk(self.rig.folder):
            for name in folders:
                if not (path := Path(folder, name)).is_symlink():
                    path.chmod(0o700)
        self.rig.close()
        self._servers.close()
        shutil.rmtree(self.rig.folder, ignore_errors=True)

    def _repair(self, found: Ended) -> None:
        """Do what the messages say, which must help. Raises Stuck."""
        said = [found.output]
        for _ in range(ADVICES):
            if drop := re.search(r"drop them: (git -C .+)", found.output):
                subprocess.run(drop[1], shell=True)
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
        self._disk = folder / "disk"
        self._disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=400m", "none", str(self._disk)]
        self.have_a_disk = subprocess.run(mount, capture_output=True).returncode == 0
        """Whether machines have one of their own, which can fill up without harm to others."""
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
        return Victim(self._disk / "machine", self._folder / "cache")

    def drop(self) -> None:
        self._cases = 0
        if self._victim:
            self._victim.close()
            self._victim = None

    def close(self) -> None:
        self.drop()
        if self.have_a_disk:
            subprocess.run(["umount", self._disk], check=True)


@contextmanager
def machines(folder: Path) -> Iterator[Victims]:
    found = Victims(folder)
    try:
        yield found
    finally:
        found.close()


def _node(folder: Path) -> Repository:
    files = {"__init__.py": NOTE, "requirements.txt": "packaging==24.0\n", "install.py": ""}
    node = Forge(folder).node("alpha", dict(files))
    node.git("tag", "v1")
    node.commit({"requirements.txt": "packaging==24.1\n", "notes": "new"}, tag="v2")
    return node
