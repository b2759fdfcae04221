"""One image for all tests of a session, of a simulated machine with all that a secret opens."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import uv_cache
from tests.forge import Forge, Repository
from tests.image.context import MACHINE, make_context
from tests.image.engine import Container, Engine, missing
from tests.model_server import ModelServer, model_server, safetensors
from tests.rig import SIMULATOR, Rig
from tests.servers import git_server, index_server

PASSWORD, TOKEN = "planted-password-4711", "planted-index-token-4712"
"""What the build needs; WORKER is what only a container does."""
WORKER = "planted-worker-token-4713"
CREDENTIALS = "${INDEX_USER}:${INDEX_TOKEN}"
UID = 12345
TAG = "localhost/machine"
SCRIPT = "import pathlib; pathlib.Path('made_by_script').write_text('x')\n"


@dataclass
class Site:
    """A machine, its build context, and the image of it."""

    engine: Engine
    rig: Rig
    context: Path
    repositories: dict[str, Repository]
    models: ModelServer
    secrets: dict[str, Path]
    containers: list[Container] = field(default_factory=list)

    def lock(self, *update: str) -> None:
        if update:
            self.rig.doit("update", *update)
        self.rig.doit("lock", "models")

    def build(self, tag: str = TAG, code: int | None = 0) -> str:
        """`make image` of the machine as it is now; what was printed."""
        self.rig.write()
        for file in (self.rig.file, self.rig.lock_file):
            shutil.copy(file, self.context / MACHINE)
        arguments = {
            "BASE_IMAGE": "localhost/base",
            "PACKAGES": "",
            "UID": str(UID),
            "GID": str(UID),
        }
        venv = Path(sys.prefix)
        ended = subprocess.run(
            [
                "make", "image", f"MACHINE_FILES={MACHINE}",
                f"--old-file={venv / '.installed'}", f"VENV={venv}",
                f"ENGINE={shlex.join(self.engine.command)}",
                f"BUILD={shlex.join(self.engine.options(tag, arguments, self.secrets))}",
            ],
            cwd=self.context,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=900,
        )  # fmt: skip
        assert code is None or ended.returncode == code, ended.stdout
        return ended.stdout

    def container(
        self,
        volumes: Path,
        tag: str = TAG,
        filled: tuple[str, ...] = ("shared", "state"),
        token: str | None = WORKER,
    ) -> Container:
        """A container that is not started yet, with volumes in a folder."""
        mounted = {
            "/workspace/shared": volumes / "shared",
            "/workspace/.machine/state": volumes / "state",
        }
        for folder in mounted.values():
            folder.mkdir(parents=True, exist_ok=True)
            os.chown(folder, UID, UID)
        env = {} if token is None else {"WORKER_TOKEN": token}
        made = Container(self.engine, tag, mounted, env, filled)
        self.containers.append(made)
        return made


@pytest.fixture(scope="session")
def _site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if why := missing():
        pytest.skip(why)
    if sys.version_info[:2] != (3, 11):
        pytest.skip("machine.lock is made with the Python of the tests: needs 3.11, as Debian 12")
    folder = tmp_path_factory.mktemp("image")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    engine = Engine(folder)
    forge = Forge(folder / "forge")
    # A name of its own, since uv's cache is the user's and ports come again.
    package = f"tiny{os.urandom(4).hex()}"
    with (
        git_server(forge.folder, f"me:{PASSWORD}") as (url, _),
        index_server(package, f"me:{TOKEN}") as (index, _),
        model_server() as models,
    ):
        try:
            engine.make_base(cache / "comfy-machine" / "tests")
            yield _make(folder, engine, forge, url, models, package, index)
        finally:
            engine.close()


def _make(
    folder: Path,
    engine: Engine,
    forge: Forge,
    url: str,
    models: ModelServer,
    package: str,
    index: str,
) -> Site:
    repositories = {
        "plain": forge.node("plain", {"requirements.txt": f"{package}\n"}),
        "scripted": forge.node("scripted", {"install.py": SCRIPT, "requirements.txt": "six\n"}),
    }
    models.content["/a.safetensors"] = safetensors(10_000)
    home = folder / "home"
    home.mkdir()
    netrc, env = home / ".netrc", folder / "env"
    netrc.write_text(f"machine 127.0.0.1 login me password {PASSWORD}\n")
    netrc.chmod(0o600)
    env.write_text(f"INDEX_USER=me\nINDEX_TOKEN={TOKEN}\n")
    spec = {
        "workspace": "workspace",
        "comfyui": {"path": "comfyui"},
        "python": {
            "torch": "none",
            "extra_index_urls": [
                index.replace("://", "://${INDEX_USER}:${INDEX_TOKEN}@") + "/simple"
            ],
        },
        "custom_nodes": [{"url": f"{url}/{name}"} for name in repositories],
        "models": {
            "files": [{"target": "vae/a.safetensors", "url": f"{models.url}/a.safetensors"}]
        },
        "instances": {"gpus": 2, "cpu_only": True},
        "workers": [
            {"name": "worker", "command": ["sleep", "1000"], "env": {"TOKEN": "${WORKER_TOKEN}"}}
        ],
    }
    (folder / "machine").mkdir()
    shutil.copytree(SIMULATOR, folder / "machine" / "comfyui")
    rig = Rig(
        folder / "machine",
        spec,
        env={
            "HOME": str(home),
            "UV_CACHE_DIR": uv_cache(),
            "INDEX_USER": "me",
            "INDEX_TOKEN": TOKEN,
        },
    )
    site = Site(engine, rig, _context(folder), repositories, models, {"netrc": netrc, "env": env})
    site.lock()
    site.build()
    return site


def _context(folder: Path) -> Path:
    context = make_context(folder / "context")
    shutil.copytree(SIMULATOR, context / MACHINE / "comfyui")
    # What a careless person leaves there.
    (context / MACHINE / ".env.local").write_text(f"WORKER_TOKEN={WORKER}\n")
    return context


@pytest.fixture
def site(_site: Site) -> Iterator[Site]:
    spec = _site.rig.spec
    yield _site
    _site.rig.spec = spec
    for container in _site.containers:
        container.close()
    _site.containers.clear()
