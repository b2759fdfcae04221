"""Images and containers without a Docker engine: buildah builds, runc runs, as Docker's does.

buildah's chroot isolation needs nothing of the kernel that a container such as CI's wouldn't
allow root.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAMS = {"buildah": "buildah", "runc": "runc", "debootstrap": "debootstrap"}
"""What has to be here, and Debian's package that brings it."""
BASE = "localhost/base"
PACKAGES = "python3,python3-venv,git,ca-certificates"
CERTIFICATES = Path("/etc/ssl/certs")


def missing() -> str | None:
    """Why images can't be built here, None if they can."""
    if os.getuid() != 0:
        return "building images takes root here"
    away = [package for name, package in PROGRAMS.items() if shutil.which(name) is None]
    return f"needs: apt-get install --no-install-recommends {' '.join(away)}" if away else None


@dataclass
class Engine:
    """buildah with a storage of its own."""

    folder: Path

    @property
    def command(self) -> list[str]:
        """buildah, as a build has to call it too."""
        own = ["--root", self.folder / "storage", "--runroot", self.folder / "run"]
        return [str(word) for word in ["buildah", *own, "--storage-driver", "overlay"]]

    def buildah(self, *arguments: object, code: int | None = 0) -> str:
        """What it prints. The exit code is insisted on, None takes any."""
        ended = subprocess.run(
            [*self.command, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        assert code is None or ended.returncode == code, ended.stdout
        return ended.stdout

    def make_base(self, cache: Path) -> None:
        """Debian with Python and git, from `cache` when it was made before."""
        archive = cache / "base-bookworm.tar"
        if not archive.exists():
            root = self.folder / "base"
            what = ["--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)]
            subprocess.run(["debootstrap", *what], check=True, capture_output=True, timeout=600)
            cache.mkdir(parents=True, exist_ok=True)
            part = archive.with_suffix(f".{os.getpid()}.part")
            subprocess.run(["tar", "-C", root, "-cf", part, "."], check=True)
            part.replace(archive)
            shutil.rmtree(root)
        container = self.buildah("from", "scratch").strip()
        self.buildah("add", "--quiet", container, archive)
        self.buildah("commit", "--quiet", "--rm", container, BASE)

    def options(
        self, tag: str, arguments: Mapping[str, str], secrets: Mapping[str, Path]
    ) -> list[str]:
        """What `build` takes here."""
        # Behind a company's proxy, the base has to trust what this system trusts.
        from_here = [path for path in (CERTIFICATES, Path("/etc/pip.conf")) if path.exists()]
        return [
            "--format", "docker", "--isolation", "chroot", "--network", "host", "--layers",
            *(f"--volume={path}:{path}:ro" for path in from_here),
            *(f"--build-arg={key}={value}" for key, value in arguments.items()),
            *(f"--secret=id={name},src={file}" for name, file in secrets.items()),
            "--tag", tag,
        ]  # fmt: skip

    def config(self, tag: str) -> dict[str, Any]:
        """What the image says of itself, as Docker has it."""
        docker: dict[str, Any] = json.loads(self.buildah("inspect", "--type", "image", tag))
        return dict(docker["Docker"]["config"])

    def layers(self, tag: str) -> list[Path]:
        """The folder of each layer's content, the base's first."""
        container = self.buildah("from", "--pull-never", tag).strip()
        mounted = Path(self.buildah("mount", container).strip())
        options = next(
            line.split()[3]
            for line in Path("/proc/mounts").read_text().splitlines()
            if line.split()[1] == str(mounted)
        )
        lower = next(o for o in options.split(",") if o.startswith("lowerdir="))
        folders = [Path(path).resolve() for path in lower.removeprefix("lowerdir=").split(":")]
        self.buildah("rm", container)
        return folders[::-1]

    def close(self) -> None:
        """Unmount and remove all of it."""
        self.buildah("rm", "--all", code=None)
        subprocess.run(["umount", self.folder / "storage" / "overlay"], capture_output=True)
        shutil.rmtree(self.folder / "storage", ignore_errors=True)


@dataclass
class Container:
    """One container at a time, with a read-only root and no network; its volumes are folders."""

    engine: Engine
    tag: str
    volumes: dict[str, Path]
    env: dict[str, str]
    filled: tuple[str, ...] = ()
    """The volumes that get what the image has in their place while they are empty, as Docker's do
    that have a name; folders of the host that are mounted, and Kubernetes' volumes, don't."""
    name: str = ""
    _process: subprocess.Popen[bytes] | None = None
    _root: str = ""

    @property
    def output(self) -> str:
        return (self._bundle / "output").read_text(errors="replace")

    @property
    def _bundle(self) -> Path:
        return self.engine.folder / self.name

    def start(self, *arguments: str) -> None:
        self.name = f"comfy-machine-{os.getpid()}-{time.monotonic_ns()}"
        self._root = self.engine.buildah("from", "--pull-never", self.tag).strip()
        mounted = self.engine.buildah("mount", self._root).strip()
        for at, source in self.volumes.items():
            if source.name in self.filled and not any(source.iterdir()):
                subprocess.run(["cp", "-a", f"{mounted}{at}/.", source], check=True)
        self._bundle.mkdir()
        self._runc("spec", "--bundle", str(self._bundle))
        file = self._bundle / "config.json"
        spec = self._spec(json.loads(file.read_text()), mounted, arguments)
        file.write_text(json.dumps(spec))
        with (self._bundle / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [*self._command(), "run", "--bundle", self._bundle, self.name],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def _spec(self, spec: dict[str, Any], root: str, arguments: Sequence[str]) -> dict[str, Any]:
        image = self.engine.config(self.tag)
        user, _, group = image["User"].partition(":")
        env = [*image["Env"], *(f"{key}={value}" for key, value in self.env.items())]
        spec["process"] |= {
            "terminal": False,
            "args": [*image["Entrypoint"], *arguments],
            "env": env,
            "cwd": image["WorkingDir"],
            "user": {"uid": int(user), "gid": int(group)},
            "rlimits": [],
        }
        spec["root"] = {"path": root, "readonly": True}
        kept = ("pid", "mount", "ipc", "uts", "network")
        spec["linux"]["namespaces"] = [{"type": name} for name in kept]
        tmp = ["nosuid", "nodev", "mode=1777"]
        spec["mounts"] += [
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": tmp},
            *(
                {
                    "destination": at,
                    "type": "bind",
                    "source": str(source),
                    "options": ["rbind", "rw"],
                }
                for at, source in self.volumes.items()
            ),
        ]
        return spec

    def run(self, *command: str) -> tuple[int, str]:
        """A command in the running container, as `docker exec` and HEALTHCHECK do."""
        ended = subprocess.run(
            [*self._command(), "exec", self.name, *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=120,
        )  # fmt: skip
        return ended.returncode, ended.stdout

    def check(self) -> tuple[int, str]:
        """What the image's HEALTHCHECK answers."""
        how, *command = self.engine.config(self.tag)["Healthcheck"]["Test"]
        assert how == "CMD"
        return self.run(*command)

    def stop(self, seconds: float = 10.0) -> int:
        """As `docker stop`: SIGTERM; the exit code. Raises TimeoutExpired where SIGKILL is due."""
        assert self._process
        self._runc("kill", self.name, "TERM")
        return self.wait(seconds)

    def wait(self, seconds: float) -> int:
        assert self._process
        code = self._process.wait(seconds)
        self.engine.buildah("rm", self._root)
        self._process = None
        return code

    def close(self) -> None:
        """End what a failed test left."""
        if self._process:
            if self._process.poll() is None:
                self._runc("kill", self.name, signal.SIGKILL.name.removeprefix("SIG"))
            self.wait(20)

    def _command(self) -> list[str]:
        return ["runc", "--root", str(self.engine.folder / "runc")]

    def _runc(self, *arguments: str) -> None:
        subprocess.run([*self._command(), *arguments], check=True, capture_output=True)
