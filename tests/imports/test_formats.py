"""Files of other tools, told apart by what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from comfy_machine.imports import formats
from comfy_machine.imports.entries import Line, ModelFile, Node
from comfy_machine.imports.wanted import Wanted

PACK = "https://github.com/a/Pack"
COMMIT = "1" * 40
NOTE = ["for x"]


def read(folder: Path, name: str, document: Any) -> Wanted:
    file = folder / name
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return formats.read(file, "x")


def snapshot(**changes: Any) -> dict[str, Any]:
    return {
        "comfyui": COMMIT,
        "git_custom_nodes": {PACK: {"hash": COMMIT, "disabled": False}},
        "cnr_custom_nodes": {"comfyui-impact-pack": "8.22.0"},
        "file_custom_nodes": [],
        "pips": {},
        **changes,
    }


def test_a_snapshot_of_the_manager(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "s.json",
        snapshot(
            git_custom_nodes={
                PACK: {"hash": COMMIT, "disabled": False},
                "https://github.com/a/Off": {"hash": COMMIT, "disabled": True},
            },
            file_custom_nodes=[
                {"filename": each, "disabled": False}
                for each in ("mine.py", "websocket_image_save.py")
            ],
            pips={
                "numpy==1.26.4": "",
                "torch==2.5.1+cu121": "",
                "clip": "git+https://github.com/openai/CLIP.git@d50d76d",
                "local": "file:///home/me/local",
            },
        ),
    )
    assert found.comfyui == ("", COMMIT)
    assert found.nodes == [
        Node(url=PACK, ref=COMMIT, notes=NOTE),
        Node(id="comfyui-impact-pack", version="8.22.0", notes=NOTE),
    ]
    assert found.packages == [
        Line("clip @ git+https://github.com/openai/CLIP.git@d50d76d", NOTE)
    ]  # fmt: skip
    assert found.preferences == {"numpy": "1.26.4", "torch": "2.5.1+cu121"}
    assert found.remarks == ["https://github.com/a/Off is disabled there"]
    assert found.left_out == ["mine.py is a single file, which only its folder has"]


def test_a_lock_of_comfy_cli(tmp_path: Path) -> None:
    text = f"""
basic:
models:
  - model: x.safetensors
    url: https://example.com/x.safetensors
    paths:
      - path: /home/me/ComfyUI/models/checkpoints/sub/x.safetensors
    hashes: [{{hash: {"A" * 64}, type: SHA256}}, {{hash: "1", type: CRC32}}]
    type: checkpoint
  - {{model: l.safetensors, url: "https://example.com/l", type: lora}}
  - {{model: gone.safetensors, type: lora}}
custom_nodes:
  comfyui: "{COMMIT}"
  git_custom_nodes: {{"{PACK}": {{disabled: false, hash: "{COMMIT}"}}}}
"""
    found = read(tmp_path, "comfy-lock.yaml", text)
    assert found.models == [
        ModelFile(
            "checkpoints/sub/x.safetensors",
            url="https://example.com/x.safetensors",
            sha256="a" * 64,
            notes=NOTE,
        ),
        ModelFile("loras/l.safetensors", url="https://example.com/l", notes=NOTE),
    ]
    assert (found.comfyui, [node.url for node in found.nodes]) == (("", COMMIT), [PACK])
    assert found.left_out == ["model gone.safetensors has no url"]


def test_a_lock_as_comfy_cli_itself_writes_it(tmp_path: Path) -> None:
    text = f"""
basics: {{name: x, updated_at: "2026-08-01T00:00:00"}}
models:
  - name: x.safetensors
    model: x.safetensors
    url: https://example.com/x
    paths: [{{path: models/vae/x.safetensors}}]
    hash: {"B" * 64}
    type: vae
custom_nodes: []
"""
    (model,) = read(tmp_path, "comfy-lock.yaml", text).models
    assert (model.target, model.sha256) == ("vae/x.safetensors", "b" * 64)


def test_an_archive_of_comfy_pack(tmp_path: Path) -> None:
    model = {
        "filename": "models/checkpoints/x.safetensors",
        "sha256": "b" * 64,
        "source": {"url": "https://huggingface.co/a/b/blob/main/x.safetensors"},
    }
    own = {"filename": "models/loras/own.safetensors", "sha256": "c" * 64, "source": {}}
    node = {"url": PACK, "commit_hash": COMMIT, "disabled": False}
    listed = {"comfyui": COMMIT, "models": [model, own], "python": "3.11", "custom_nodes": [node]}
    page, api = {"nodes": [{"id": 1, "type": "A"}]}, {"1": {"class_type": "A", "inputs": {}}}
    with ZipFile(tmp_path / "a.cpack.zip", "w") as archive:
        archive.writestr("snapshot.json", json.dumps(listed))
        archive.writestr("workflow.json", json.dumps(page))
        archive.writestr("workflow_api.json", json.dumps(api))
        archive.writestr("input/a.png", b"")
    found = formats.read(tmp_path / "a.cpack.zip", "x")
    assert found.comfyui == ("", COMMIT)
    assert found.nodes == [Node(url=PACK, ref=COMMIT, notes=NOTE)]
    assert [(each.target, each.url, each.sha256) for each in found.models] == [
        ("checkpoints/x.safetensors", model["source"]["url"], "b" * 64)  # type: ignore[index]
    ]
    (workflow,) = found.workflows
    assert (workflow.document, workflow.runnable, workflow.embedded) == (page, api, True)
    assert found.left_out == [
        "1 files below input/: unpack them into the inputs folder",
        f"model {own['filename']}, sha256 {'c' * 64}: it has no address",
    ]


def test_the_predecessors_nodes(tmp_path: Path) -> None:
    entry = {
        "name": "Mine", "url": f"git clone {PACK}", "branch": "dev", "requirements": True,
        "env": {"A": "${A_KEY}", "B": "B_KEY", "C": "plain"}, "custom_script": "python setup.py",
    }  # fmt: skip
    bare = {"url": "https://github.com/a/Other"}
    node = Node(
        url=PACK,
        ref="dev",
        name="Mine",
        env={"A": "${A_KEY}", "B": "${B_KEY}", "C": "plain"},
        script="python setup.py",
        notes=NOTE,
    )
    other = Node(url=bare["url"], requirements=False, notes=NOTE)
    for document in ({"custom_nodes": [entry, bare]}, [entry, bare], {"nodes": [entry, bare]}):
        assert read(tmp_path, "config_nodes.json", document).nodes == [node, other]
    named = {"Mine": {name: each for name, each in entry.items() if name != "name"}}
    assert read(tmp_path, "config_nodes.json", named).nodes == [node]


def test_the_predecessors_models(tmp_path: Path) -> None:
    shared, store = tmp_path / "shared", tmp_path / "sd_models/Stable-diffusion"
    store.mkdir(parents=True)
    shared.mkdir()
    (store / "x.safetensors").write_bytes(b"x")
    links = {
        "symlinks": [
            {"source": "Stable-diffusion/x.safetensors", "target": "checkpoints/x.safetensors"},
            {"source": "gone.safetensors", "target": "checkpoints/gone.safetensors"},
        ]
    }
    found = read(shared, "static-models.json", links)
    here, gone = found.models
    assert (here.target, here.source) == ("checkpoints/x.safetensors", f"{store}/x.safetensors")
    assert gone.optional
    assert not here.optional
    assert found.left_out[0].startswith("the source of checkpoints/gone.safetensors isn't at ")
    listed = [{"name": "v.pt", "url": "https://e.com/v", "size": "1", "type": "vae",
               "subfolder": "sub"}]  # fmt: skip
    assert read(shared, "static-models.json", listed).models == [
        ModelFile("vae/sub/v.pt", url="https://e.com/v", notes=NOTE)
    ]


def test_a_manifest_of_vast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_VERSION", "v0.1")  # A value that is this process's alone.
    text = """
version: 1
pip_packages:
  - packages: [torch, boto3>=1]
    args: "--torch-backend auto"
git_repos:
  - url: https://github.com/Comfy-Org/ComfyUI
    dest: "${WORKSPACE:-/workspace}/ComfyUI"
    ref: "${COMFYUI_VERSION:-master}"
  - url: https://github.com/a/Pack
    dest: "${WORKSPACE:-/workspace}/ComfyUI/custom_nodes/Renamed"
    post_commands:
      - "uv pip install --no-cache --python /venv/main/bin/python -r requirements.txt"
      - "python setup.py"
  - {url: https://github.com/a/wrapper, dest: /opt/wrapper}
apt_packages: [ffmpeg]
downloads:
  - url: https://huggingface.co/a/b/resolve/main/x.safetensors
    dest: "${WORKSPACE:-/workspace}/ComfyUI/models/checkpoints/x.safetensors"
  - {url: https://civitai.com/api/download/models/1, dest: /workspace/ComfyUI/models/loras/}
conditional_downloads:
  - when: hf_token_valid
    downloads: [{url: https://huggingface.co/a/c/resolve/main/y.sft, dest: /w/models/vae/}]
extensions:
  - {module: provisioner_comfyui, config: {workflows: [https://example.com/w.json]}}
services:
  - {name: comfyui, command: "python main.py ${COMFYUI_ARGS:---port 18188 --lowvram}"}
  - {name: wrapper, command: "uvicorn main:app"}
"""
    found = read(tmp_path, "provisioning.yaml", text)
    assert found.comfyui == ("https://github.com/Comfy-Org/ComfyUI", "master")
    assert found.nodes == [Node(url=PACK, name="Renamed", script="python setup.py", notes=NOTE)]
    assert [each.text for each in found.packages] == ["boto3>=1"]
    assert [each.target for each in found.models] == ["checkpoints/x.safetensors", "vae/y.sft"]
    assert found.args == ["--port", "18188", "--lowvram"]
    assert found.remarks == ["torch: python.torch chooses it"]
    assert [line.split(":")[0] for line in found.left_out] == [
        "https", "apt_packages", "the service wrapper", "the workflow https", "the download https",
    ]  # fmt: skip


def test_folders_of_models_in_extra_model_paths_yaml(tmp_path: Path) -> None:
    for name in ("models/Stable-diffusion", "models/Lora", "models/LyCORIS"):
        (tmp_path / "webui" / name).mkdir(parents=True)
    text = """
a111:
    base_path: webui
    checkpoints: models/Stable-diffusion
    loras: |
        models/Lora
        models/LyCORIS
    vae: models/VAE
gone:
    base_path: /nowhere
    checkpoints: models
"""
    found = read(tmp_path, "extra_model_paths.yaml", text)
    (root,) = found.roots
    assert root.path == str(tmp_path / "webui")
    assert root.folders == {
        "checkpoints": ["models/Stable-diffusion"],
        "loras": ["models/Lora", "models/LyCORIS"],
    }
    assert found.left_out == [
        f"a111: {tmp_path}/webui/models/VAE isn't there", "gone: /nowhere isn't there",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.json", "{", "x isn't JSON: Expecting property name"),
        ("a.json", "[" * 100_000, "x isn't JSON: nested too deeply"),
        ("a.json", "[]", "x is none of the files that import reads: a workflow"),
        ("a.yaml", "a: [", "x isn't YAML, line 1"),
        ("a.yaml", "workspace: x", "x is none of the files that import reads"),
        ("a.bin", "text", "x holds no workflow: it was saved without, or by another program"),
        ("a.zip", "PK", "x holds no workflow"),
    ],
)
def test_what_is_none_of_them_is_refused_in_one_line(
    tmp_path: Path, name: str, text: str, why: str
) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as refused:
        read(tmp_path, name, text)
    assert str(refused.value).startswith(why)
