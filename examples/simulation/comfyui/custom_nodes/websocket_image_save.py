"""A custom node in a single file: images go to the client over the WebSocket, none to disk."""

from __future__ import annotations

import time
from typing import Any

import comfy.utils


class SaveImageWebsocket:
    """Sends each image as a preview."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"images": ("IMAGE",)}}

    RETURN_TYPES = ()
    FUNCTION = "save_images"
    OUTPUT_NODE = True
    CATEGORY = "api/image"

    def save_images(self, images: list[Any]) -> dict[str, Any]:
        progress = comfy.utils.ProgressBar(len(images))
        for step, image in enumerate(images):
            progress.update_absolute(step, len(images), ("PNG", image, None))
        return {}

    @classmethod
    def IS_CHANGED(cls, images: list[Any]) -> float:  # noqa: N802
        return time.time()


NODE_CLASS_MAPPINGS = {"SaveImageWebsocket": SaveImageWebsocket}
