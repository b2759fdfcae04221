"""Tiny wheels, for tests that need packages of their own."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path


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


def _digest(text: str) -> str:
    total = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(total).rstrip(b"=").decode()
