"""Names of model files, as workflows have them."""

from __future__ import annotations

import re

MODEL_FILE = re.compile(
    r"[^\n/\\:][^\n:]*\.(?:safetensors|sft|ckpt|pt|pt2|pth|bin|gguf|onnx)", re.I
)
"""What looks like the name of a model: no absolute path, and no prompt with embedding:NAME."""
