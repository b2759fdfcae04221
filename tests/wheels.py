"""Tiny wheels, for tests that need packages of their own."""

from __future__ import annotations

import zipfile
from pathlib import Path


def wheel(
    folder: Path,
    name: str,
    version: str,
    requires: tuple[str, ...] = (),
    python: str = ">=3.8",
    code: str = "",
) -> Path:
    """Write `name-version-py3-none-any.whl` with one module, which knows its version.

    `code` follows in that module.
    """
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    file = folder / f"{module}-{version}-py3-none-any.whl"
    info = f"{module}-{version}.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    metadata += [f"Requires-Python: {python}"]
    metadata += [f"Requires-Dist: {each}" for each in requires]
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{module}/__init__.py", f"__version__ = {version!r}\n{code}")
        archive.writestr(f"{info}/METADATA", "\n".join(metadata) + "\n")
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{info}/RECORD", "")
    return file
