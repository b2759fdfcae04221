"""Base interpreters, for tests of what an image brings along beside its Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

from comfy_machine.lock import preinstalled
from tests.wheels import wheel

VERSION = "python{}.{}".format(*sys.version_info)
OURS = Path(sysconfig.get_path("purelib"))
"""Where doit and this project are installed."""


@dataclass(frozen=True)
class Base:
    """A Python with packages of its own, the standard library linked from the one that runs."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / VERSION

    @property
    def site(self) -> Path:
        """Where its packages are; distributions differ in that."""
        script = "import json, site; print(json.dumps(site.getsitepackages()))"
        printed = subprocess.check_output([str(self.python), "-I", "-c", script])
        return Path(json.loads(printed)[0])

    def install(self, name: str, version: str, code: str = "") -> None:
        self.site.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel(self.folder / "wheels", name, version, code=code)) as archive:
            archive.extractall(self.site)

    def uninstall(self, name: str) -> None:
        for path in (self.site / name, *self.site.glob(f"{name}-*.dist-info")):
            shutil.rmtree(path)

    def doit(self, folder: Path) -> tuple[str, ...]:
        """The words that run doit in a new virtual environment of this Python, at `folder`."""
        subprocess.run([self.python, "-m", "venv", "--without-pip", folder], check=True)
        (site,) = folder.glob("lib/*/site-packages")
        (site / "ours.pth").write_text(f"import site; site.addsitedir({str(OURS)!r})\n")
        return str(folder / "bin" / "python"), "-m", "doit"


def make_base(folder: Path) -> Base:
    base = Base(folder)
    base.python.parent.mkdir(parents=True)
    # A copy: through a link Python finds the prefix that it was built for.
    shutil.copy(preinstalled.base_python().resolve(), base.python)
    library = folder / "lib" / VERSION
    library.mkdir(parents=True)
    for path in Path(sysconfig.get_path("stdlib")).iterdir():
        if path.name not in ("site-packages", "dist-packages"):
            (library / path.name).symlink_to(path)
    for path in Path(sysconfig.get_config_var("LIBDIR") or os.devnull).glob("libpython*"):
        (folder / "lib" / path.name).symlink_to(path)
    return base
