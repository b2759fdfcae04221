"""Workflows in images, videos, latents and ComfyUI's answers, written as ComfyUI writes them."""

from __future__ import annotations

import json
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from comfy_machine.imports import formats
from comfy_machine.imports.wanted import Workflow

PAGE = {"nodes": [{"id": 1, "type": "A"}]}
API = {"1": {"class_type": "A", "inputs": {}}}
TEXTS = {"prompt": json.dumps(API), "workflow": json.dumps(PAGE)}


def workflow_in(file: Path) -> Workflow:
    (found,) = formats.read(file, "x").workflows
    return found


def image() -> Image.Image:
    return Image.new("RGB", (8, 8))


def png(file: Path) -> None:
    """As SaveImage does."""
    info = PngInfo()
    for name, text in TEXTS.items():
        info.add_text(name, text)
    image().save(file, pnginfo=info)


def webp(file: Path) -> None:
    """As SaveAnimatedWEBP does."""
    exif = image().getexif()
    exif[0x0110], exif[0x010F] = (f"{name}:{TEXTS[name]}" for name in ("prompt", "workflow"))
    image().save(file, exif=exif)


def video(file: Path, metadata: dict[str, str]) -> None:
    """As SaveVideo does, with options for tags of any name."""
    with av.open(str(file), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata.update(metadata)
        stream = container.add_stream("mpeg4", rate=Fraction(8))
        stream.width = stream.height = 16
        frame = av.VideoFrame(16, 16, "rgb24")
        container.mux([*stream.encode(frame), *stream.encode()])


def latent(file: Path) -> None:
    """As SaveLatent does."""
    header = json.dumps({"__metadata__": TEXTS}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header)


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("a.png", png),
        ("a.webp", webp),
        ("a.mp4", lambda file: video(file, TEXTS)),
        ("a.mkv", lambda file: video(file, TEXTS)),
        ("vhs.mp4", lambda file: video(file, {"comment": json.dumps({**TEXTS, "workflow": PAGE})})),
        ("a.latent", latent),
    ],
)
def test_both_forms_are_read(tmp_path: Path, name: str, save: Any) -> None:
    save(tmp_path / name)
    found = workflow_in(tmp_path / name)
    assert (found.document, found.runnable, found.embedded) == (PAGE, API, True)


def test_the_api_format_serves_where_there_is_no_other(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("prompt", TEXTS["prompt"])
    image().save(tmp_path / "a.png", pnginfo=info)
    assert workflow_in(tmp_path / "a.png").document == API


def test_an_answer_of_comfyui_holds_the_job_s_workflow(tmp_path: Path) -> None:
    job = {"prompt": [3, "id", API, {"extra_pnginfo": {"workflow": PAGE}}, ["1"]], "outputs": {}}
    (tmp_path / "history.json").write_text(json.dumps({"id": job}))
    found = workflow_in(tmp_path / "history.json")
    assert (found.document, found.runnable) == (PAGE, API)


def test_an_image_without_one_or_with_something_else_is_refused(tmp_path: Path) -> None:
    image().save(tmp_path / "bare.png")
    with pytest.raises(ValueError, match="holds no workflow"):
        formats.read(tmp_path / "bare.png", "x")
    info = PngInfo()
    info.add_text("workflow", '{"a": 1}')
    image().save(tmp_path / "other.png", pnginfo=info)
    with pytest.raises(ValueError, match="what x holds is no workflow of ComfyUI"):
        formats.read(tmp_path / "other.png", "x")
