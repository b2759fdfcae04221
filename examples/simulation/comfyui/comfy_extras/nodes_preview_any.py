"""A node that shows any value as text, declared the old way."""

from __future__ import annotations

import json
from typing import Any


class PreviewAny:
    """Shows what it is given to the client."""

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"source": ("*", {})}}

    RETURN_TYPES = ()
    FUNCTION = "main"
    OUTPUT_NODE = True
    CATEGORY = "utils"

    def main(self, source: Any) -> dict[str, Any]:
        text = source if isinstance(source, str) else json.dumps(source, default=str)
        return {"ui": {"text": (text,)}}


NODE_CLASS_MAPPINGS = {"PreviewAny": PreviewAny}
NODE_DISPLAY_NAME_MAPPINGS = {"PreviewAny": "Preview Any"}
