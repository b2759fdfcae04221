"""Models that are on this disk already."""

from __future__ import annotations

import hashlib
from pathlib import Path

from comfy_machine.imports.disk_models import in_folders


def test_files_are_found_by_name_and_by_content(tmp_path: Path) -> None:
    for place in ("loras/a/x.safetensors", "loras/b/x.safetensors", "x.safetensors"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(place)
    (tmp_path / "loras/up").symlink_to(tmp_path)
    found = in_folders([tmp_path])
    by_name = found.by_name("b\\X.safetensors")
    assert by_name
    assert (by_name.folder, by_name.path) == ("loras", tmp_path / "loras/b/x.safetensors")
    content = hashlib.sha256(b"loras/a/x.safetensors").hexdigest()
    by_hash = found.by_hash("x.safetensors", content)
    assert by_hash
    assert by_hash.path == tmp_path / "loras/a/x.safetensors"
    assert found.by_hash("x.safetensors", "0" * 64) is None
    assert found.by_name("y.safetensors") is None
