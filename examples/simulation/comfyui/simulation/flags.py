"""ComfyUI's command line. An unknown flag ends the process with exit code 2, at once."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Accepted, and of no effect here: there is no model to load and no frontend to serve.
_SWITCHES = [
    "auto-launch",
    "disable-auto-launch",
    "force-channels-last",
    "disable-ipex-optimize",
    "supports-fp8-compute",
    "cpu-vae",
    "disable-xformers",
    "async-offload",
    "force-non-blocking",
    "disable-smart-memory",
    "deterministic",
    "mmap-torch-files",
    "disable-mmap",
    "dont-print-server",
    "windows-standalone-build",
    "disable-api-nodes",
    "multi-user",
    "enable-compress-response-body",
]
_ALTERNATIVES = [
    "cuda-malloc disable-cuda-malloc",
    "force-fp32 force-fp16",
    "fp32-unet fp64-unet bf16-unet fp16-unet fp8_e4m3fn-unet fp8_e5m2-unet fp8_e8m0fnu-unet",
    "fp16-vae fp32-vae bf16-vae",
    "fp8_e4m3fn-text-enc fp8_e5m2-text-enc fp16-text-enc fp32-text-enc bf16-text-enc",
    "use-split-cross-attention use-quad-cross-attention use-pytorch-cross-attention"
    " use-sage-attention use-flash-attention",
    "force-upcast-attention dont-upcast-attention",
    "gpu-only highvram normalvram lowvram novram cpu",
]
_FAST = ["fp16_accumulation", "fp8_matrix_mult", "cublas_ops", "autotune"]


def existing_directory(path: str) -> str:
    """An argparse type: a directory that is there and readable."""
    if not Path(path).exists():
        raise argparse.ArgumentTypeError(f"The path '{path}' does not exist.")
    if not Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"'{path}' is not a directory.")
    if not os.access(path, os.R_OK):
        raise argparse.ArgumentTypeError(f"You do not have read permissions for '{path}'.")
    return path


def build_parser() -> argparse.ArgumentParser:
    """The parser, with real ComfyUI's names, types and defaults."""
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("--listen", default="127.0.0.1", metavar="IP", nargs="?", const="0.0.0.0,::")
    add("--port", type=int, default=8188)
    add("--tls-keyfile")
    add("--tls-certfile")
    add("--enable-cors-header", metavar="ORIGIN", nargs="?", const="*")
    add("--max-upload-size", type=float, default=100, help="megabytes")

    add("--base-directory")
    add("--extra-model-paths-config", metavar="PATH", nargs="+", action="append")
    add("--output-directory")
    add("--temp-directory")
    add("--input-directory")
    add("--user-directory", type=existing_directory)
    add("--database-url", default=f"sqlite:///{ROOT / 'user' / 'comfyui.db'}")

    add("--cuda-device", type=int, metavar="DEVICE_ID")
    add("--default-device", type=int, metavar="DEFAULT_DEVICE_ID")
    add("--directml", type=int, nargs="?", const=-1)
    add("--oneapi-device-selector")
    add("--reserve-vram", type=float, help="gigabytes")
    add("--fast", nargs="*", choices=_FAST)

    add("--preview-method", choices=["none", "auto", "latent2rgb", "taesd"], default="none")
    add("--preview-size", type=int, default=512)
    add("--default-hashing-function", choices=["md5", "sha1", "sha256", "sha512"], default="sha256")
    add("--front-end-version", default="comfyanonymous/ComfyUI@latest")
    add("--front-end-root", type=existing_directory)
    add("--comfy-api-base", default="https://api.comfy.org")

    add("--quick-test-for-ci", action="store_true")
    add("--disable-metadata", action="store_true")
    add("--disable-all-custom-nodes", action="store_true")
    add("--whitelist-custom-nodes", nargs="+", default=[])
    levels = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
    add("--verbose", default="INFO", const="DEBUG", nargs="?", choices=levels)
    add("--log-stdout", action="store_true")

    cache = parser.add_mutually_exclusive_group()
    cache.add_argument("--cache-classic", action="store_true")
    cache.add_argument("--cache-lru", type=int, default=0)
    cache.add_argument("--cache-none", action="store_true")

    for name in _SWITCHES:
        add(f"--{name}", action="store_true")
    for names in _ALTERNATIVES:
        group = parser.add_mutually_exclusive_group()
        for name in names.split():
            group.add_argument(f"--{name}", action="store_true")
    return parser


args: argparse.Namespace = build_parser().parse_args()
"""What this process was started with."""
