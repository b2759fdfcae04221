"""Images between nodes: a list of Pillow images is a batch, a single one is a batch of one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image


def batch(images: Any) -> list[Image]:
    """The images as a list.

    Raises TypeError for what is no image, such as a tensor.
    """
    from PIL.Image import Image

    found = images if isinstance(images, list | tuple) else [images]
    for image in found:
        if not isinstance(image, Image):
            raise TypeError(f"an image must be a Pillow image, not {type(image).__name__}")
    return list(found)


def save_png(image: Image, file: Path, texts: Mapping[str, Any], compress_level: int) -> None:
    """Write image under its final name, as real ComfyUI does: a kill leaves a truncated file."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for name, value in texts.items():
        info.add_text(name, json.dumps(value))
    image.save(file, pnginfo=info, compress_level=compress_level)


def convert(file: Path, *, channel: str | None, preview: str | None) -> tuple[bytes, str]:
    """The image for GET /view: a preview like ``webp;90``, its colours or its alpha.

    Returns the bytes and their content type.
    """
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    with Image.open(file) as image:
        if preview is not None:
            kind, *rest = preview.split(";")
            kind = kind if kind in ("webp", "jpeg") else "webp"
            quality = int(rest[-1]) if rest and rest[-1].isdigit() else 90
            shown = image.convert("RGB") if kind == "jpeg" or channel == "rgb" else image
            shown.save(buffer, format=kind, quality=quality)
            return buffer.getvalue(), f"image/{kind}"
        if channel == "a":
            alpha = image.convert("RGBA").getchannel("A")
            picture = Image.new("RGBA", image.size)
            picture.putalpha(alpha)
        else:
            picture = image.convert("RGB")
        picture.save(buffer, format="PNG")
    return buffer.getvalue(), "image/png"
