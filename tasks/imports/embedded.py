"""Workflows in what ComfyUI made of them: images, videos, sounds, latents, and its answers in JSON.

Source: the ways in which ComfyUI 0.33.0 saves (nodes.py, comfy_extras/nodes_images.py,
nodes_video.py, nodes_audio.py, comfy_api/latest/_ui.py): `prompt` and `workflow` as PNG texts, as
Exif of other images behind their names, as metadata of containers, and of safetensors.
"""

from __future__ import annotations

import json
import struct
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .values import mapping
from .wanted import Workflow

PAGE, API = "workflow", "prompt"
MAX_HEADER = 64_000_000
"""Bytes of a safetensors file's header."""
SAFETENSORS = (".safetensors", ".latent")


class MissingReaderError(Exception):
    """The text is the package that reads such a file."""


def of_file(file: Path, name: str) -> Workflow | None:
    """The workflow in a file that isn't text; None without one.

    Raises OSError, and MissingReaderError.
    """
    texts = _of_safetensors(file) if file.suffix.lower() in SAFETENSORS else _of_media(file)
    return _workflow(name, texts)


def of_document(document: Any, name: str) -> Workflow | None:
    """The workflow in an answer of ComfyUI: of a job of its history, the first of several."""
    for each in _jobs(document):
        prompt = each.get(API)
        if isinstance(prompt, list) and len(prompt) > 3:
            # Number, id, the workflow in API format, what the page sent besides.
            page = mapping(mapping(prompt[3]).get("extra_pnginfo")).get(PAGE)
            return Workflow(name, page or prompt[2], prompt[2], embedded=True)
    return None


def _jobs(document: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(document, dict):
        yield from (each for each in [document, *document.values()] if isinstance(each, dict))


def _workflow(name: str, texts: Mapping[str, Any]) -> Workflow | None:
    # VideoHelperSuite puts both into the comment of a video.
    texts = {**(_parsed(texts.get("comment")) or {}), **texts}
    page, api = (_parsed(texts.get(each)) for each in (PAGE, API))
    if page is None and api is None:
        return None
    return Workflow(name, page if page is not None else api, api, embedded=True)


def _parsed(text: Any) -> Any:
    try:
        found = json.loads(text) if isinstance(text, str | bytes) and text else text
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found else None


def _of_media(file: Path) -> Mapping[str, str]:
    texts = _of_image(file)
    return _of_container(file) if texts is None else texts


def _of_image(file: Path) -> Mapping[str, str] | None:
    """The texts of an image; None: it is none."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MissingReaderError("pillow") from None
    try:
        # Of damaged Exif, of which nothing is needed.
        with warnings.catch_warnings(), Image.open(file) as image:
            warnings.simplefilter("ignore")
            texts = {name: each for name, each in image.info.items() if isinstance(each, str)}
            exif = [each for each in image.getexif().values() if isinstance(each, str)]
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError):
        return None
    for each in exif:
        before, colon, after = each.partition(":")
        if colon:
            texts.setdefault(before.casefold(), after)
    return texts


def _of_container(file: Path) -> Mapping[str, str]:
    """The metadata of a video or a sound, of the file and its streams."""
    try:
        import av
    except ImportError:
        raise MissingReaderError("av") from None
    try:
        with av.open(str(file)) as container:
            found = dict(container.metadata)
            for stream in container.streams:
                found = dict(stream.metadata) | found
    except av.FFmpegError:
        return {}
    return {name.casefold(): each for name, each in found.items()}


def _of_safetensors(file: Path) -> Mapping[str, str]:
    with file.open("rb") as stream:
        begin = stream.read(8)
        size = struct.unpack("<Q", begin)[0] if len(begin) == 8 else 0
        header = _parsed(stream.read(size) if size < MAX_HEADER else None)
    about = header.get("__metadata__") if header else None
    return about if isinstance(about, dict) else {}
