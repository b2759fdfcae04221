"""Files of others that are damaged or made to do harm: one line, or what is right in them."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from comfy_machine.imports import formats
from comfy_machine.imports.wanted import Wanted

PAGE = {"nodes": [{"id": 1, "type": "A"}]}


def pack(document: Any) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        text = document if isinstance(document, str) else json.dumps(document)
        archive.writestr("snapshot.json", text)
    return content.getvalue()


def picture(**texts: str) -> bytes:
    info, content = PngInfo(), io.BytesIO()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (4, 4)).save(content, "png", pnginfo=info)
    return content.getvalue()


def nested_subgraphs(depth: int, each: int) -> dict[str, Any]:
    inner = [
        {"id": f"s{n}", "nodes": [{"id": i, "type": f"s{n + 1}"} for i in range(each)]}
        for n in range(depth)
    ]
    return {"nodes": [{"id": 1, "type": "s0"}], "definitions": {"subgraphs": inner}}


@pytest.mark.parametrize(
    "document",
    [
        {"git_custom_nodes": 5, "cnr_custom_nodes": [], "file_custom_nodes": 5, "pips": "x"},
        {"git_custom_nodes": {"https://me:secret@h/a/b": 3}, "comfyui": ["x"]},
        {"custom_nodes": {"git_custom_nodes": {}}, "models": [{"paths": 5}, {"hashes": True}, 3]},
        {"basics": 1, "models": [None]},
        {"version": 1, "git_repos": [3, {"url": 5}], "downloads": {"url": []}, "services": [[]]},
        {"version": 1, "downloads": [{"url": "https://e.com/a.pt", "dest": "/models/"}]},
        {"symlinks": [3, {"source": "x" * 5000, "target": "vae/x"}]},
        [{"url": 5, "type": None}],
        {"custom_nodes": [{"url": "https://h/a/b", "env": [], "commit": 5}]},
        {"comfyui": {"base_path": "/nowhere", "checkpoints": "x\ny"}},
        {"nodes": [{"type": "A", "widgets_values": 5, "properties": []}, 3, {"type": []}]},
        {
            "id": {
                "prompt": [1, "id", {"1": {"class_type": "A", "inputs": {}}}, {"extra_pnginfo": []}]
            }
        },
    ],
)
def test_other_types_than_expected_are_passed_over(tmp_path: Path, document: Any) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps(document))
    assert isinstance(formats.read(file, "x"), Wanted)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.zip", pack("nope"), "x can't be read: Expecting value"),
        ("a.zip", pack("[" * 200_000), "x can't be read: "),
        ("a.zip", pack({}).replace(b"\x08\x00", b"\x63\x00"), "x can't be read: "),
        ("a.zip", pack("[]"), "x has no snapshot.json"),
        ("a.yaml", b"a: 2024-99-99", "x isn't YAML: it holds a date or a number"),
        ("a.yaml", b"a: " + b"9" * 6000, "x isn't YAML: it holds a date or a number"),
        ("a.json", b"9" * 6000, "x isn't JSON: it holds a date or a number"),
        ("a.json", b"\xff", "x isn't JSON: "),
        ("a.json", json.dumps(nested_subgraphs(12, 10)).encode(), "x is none of the files"),
        ("a.json", b'{"a": {"b": "c"}}', "x is none of the files"),
        ("a.png", picture(workflow="{}"), "x holds no workflow"),
        ("a.png", picture(workflow="[" * 9000), "x holds no workflow"),
        ("a.latent", b"\xff" * 20, "x holds no workflow"),
        ("a.latent", b"", "x holds no workflow"),
    ],
)
def test_what_is_damaged_is_refused_in_one_line(
    tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as refused:
        formats.read(tmp_path / name, "x")
    assert str(refused.value).startswith(why)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    (tmp_path / "folder.json").mkdir()
    for name in ("pipe", "zero", "folder"):
        with pytest.raises(ValueError, match="x is no file"):
            formats.read(tmp_path / f"{name}.json", "x")


def test_a_prompt_that_is_no_workflow_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(workflow=json.dumps(PAGE), prompt='{"a": 1}'))
    (workflow,) = formats.read(tmp_path / "a.png", "x").workflows
    assert (workflow.document, workflow.runnable) == (PAGE, None)


def test_values_of_this_process_get_into_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_value")
    command = "python main.py --lowvram --my-key $HF_TOKEN --x=${HF_TOKEN} --y ${Z:-1}"
    manifest = {
        "version": 1, "git_repos": [], "services": [{"command": command}],
        "downloads": [{"url": "https://e.com/a.pt", "dest": "${HF_TOKEN}/models/vae/a.pt"}],
    }  # fmt: skip
    (tmp_path / "m.yaml").write_text(json.dumps(manifest))
    found = formats.read(tmp_path / "m.yaml", "x")
    assert found.args == ["--lowvram", "--y", "1"]
    paths = {"c": {"base_path": "${HF_TOKEN}/x", "checkpoints": "$HF_TOKEN"}}
    (tmp_path / "e.yaml").write_text(json.dumps(paths))
    assert "hf_value" not in str((found, formats.read(tmp_path / "e.yaml", "x")))
