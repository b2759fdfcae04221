"""Tiny wheels and sources, for tests that need packages of their own."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

BACKEND = """
import shutil, sys, zipfile

NAME, VERSION, NEEDS, SAYS = {name!r}, {version!r}, {needs!r}, {says!r}


def build_wheel(folder, config_settings=None, metadata_directory=None):
    if NEEDS and not shutil.which(NEEDS):
        print(SAYS, file=sys.stderr)
        raise SystemExit(1)
    info, file = f"{{NAME}}-{{VERSION}}.dist-info", f"{{NAME}}-{{VERSION}}-py3-none-any.whl"
    with zipfile.ZipFile(f"{{folder}}/{{file}}", "w") as archive:
        archive.writestr(f"{{NAME}}.py", "")
        metadata = f"Metadata-Version: 2.2\\nName: {{NAME}}\\nVersion: {{VERSION}}\\n"
        archive.writestr(f"{{info}}/METADATA", metadata)
        wheel = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        archive.writestr(f"{{info}}/WHEEL", wheel)
        archive.writestr(f"{{info}}/RECORD", "")
    return file
"""


def wheel(
    folder: Path,
    name: str,
    version: str,
    requires: tuple[str, ...] = (),
    python: str = ">=3.8",
    code: str = "",
    files: dict[str, str] | None = None,
) -> Path:
    """Write `name-version-py3-none-any.whl` with one module, which knows its version.

    `code` follows in that module, and `files` are further ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    file = folder / f"{module}-{version}-py3-none-any.whl"
    info = f"{module}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Requires-Python: {python}"]
    metadata += [f"Requires-Dist: {each}" for each in requires]
    texts = {
        f"{module}/__init__.py": f"__version__ = {version!r}\n{code}",
        **(files or {}),
        f"{info}/METADATA": "\n".join(metadata) + "\n",
        f"{info}/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    record = [f"{path},sha256={_digest(text)},{len(text)}" for path, text in texts.items()]
    texts[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in texts.items():
            archive.writestr(path, text)
    return file


def sdist(folder: Path, name: str, version: str, needs: str = "", says: str = "") -> Path:
    """Write `name-version.tar.gz`, whose metadata is read without a build.

    It builds where the program `needs` is on the PATH; else its build `says` why it doesn't.
    """
    folder.mkdir(parents=True, exist_ok=True)
    top = f"{name}-{version}"
    project = (
        f'[project]\nname = "{name}"\nversion = "{version}"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    content = {
        "pyproject.toml": project,
        "PKG-INFO": f"Metadata-Version: 2.2\nName: {name}\nVersion: {version}\n",
        "backend.py": BACKEND.format(name=name, version=version, needs=needs, says=says),
    }
    file = folder / f"{top}.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        for path, text in content.items():
            entry = tarfile.TarInfo(f"{top}/{path}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return file


def _digest(text: str) -> str:
    total = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(total).rstrip(b"=").decode()
