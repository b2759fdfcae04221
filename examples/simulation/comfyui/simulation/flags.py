"""ComfyUI's command line at a given date. An unknown flag ends the process with exit code 2.

``--as-of`` is the simulator's own flag; all others are real ComfyUI's of that time:

=====  ==================================================================================
2025   0.3.64, October 2025
2026   0.33.0, August 2026
later  what was read of about 0.38 to 0.40, perhaps never released so: the assets system is
       on unless ``--disable-assets``. All else is as in 2026.
=====  ==================================================================================
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TIMES = {"2025": "0.3.64", "2026": "0.33.0", "later": "0.38.1"}
"""What --as-of takes → the version that is simulated."""

# Accepted without effect: there is no model to load and no frontend to serve.
_SWITCHES = [
    "auto-launch",
    "disable-auto-launch",
    "force-channels-last",
    "supports-fp8-compute",
    "cpu-vae",
    "disable-xformers",
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
_SWITCHES_UNTIL_2025 = ["disable-ipex-optimize", "async-offload"]
_SWITCHES_SINCE_2026 = [
    "enable-triton-backend",
    "disable-triton-backend",
    "fp16-intermediates",
    "enable-manager",
    "disable-nvml-pressure",
    "disable-async-offload",
    "disable-dynamic-vram",
    "enable-dynamic-vram",
    "fast-disk",
    "disable-cuda-graphs",
    "debug-hang",
    "disable-pinned-memory",
    "enable-assets",
    "enable-asset-hashing",
]
_SWITCHES_LATER = ["disable-assets", "offline", "disable-partner-nodes", "date-based-output"]
_ALTERNATIVES = [
    "cuda-malloc disable-cuda-malloc",
    "force-fp32 force-fp16",
    "fp32-unet fp64-unet bf16-unet fp16-unet fp8_e4m3fn-unet fp8_e5m2-unet fp8_e8m0fnu-unet",
    "fp16-vae fp32-vae bf16-vae",
    "fp8_e4m3fn-text-enc fp8_e5m2-text-enc fp16-text-enc fp32-text-enc bf16-text-enc",
    "force-upcast-attention dont-upcast-attention",
]
_ATTENTION = (
    "use-split-cross-attention use-quad-cross-attention use-pytorch-cross-attention"
    " use-sage-attention use-flash-attention"
)
_ALTERNATIVES_UNTIL_2025 = [_ATTENTION, "gpu-only highvram normalvram lowvram novram cpu"]
_ALTERNATIVES_SINCE_2026 = [
    f"{_ATTENTION} use-ck-attention",
    "disable-manager-ui enable-manager-legacy-ui",
    "gpu-only highvram lowvram novram cpu",
]
_FAST = ["fp16_accumulation", "fp8_matrix_mult", "cublas_ops", "autotune"]
LEVELS = ["DEBUG", "DETAIL", "INFO", "WARNING", "ERROR", "CRITICAL"]


class Verbose(argparse.Action):
    """``--verbose [LEVEL [FILE]]``, repeatable: pairs of a level and a file, or None for here."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        given = list(values or [])
        if len(given) > 2 or (given and given[0] not in LEVELS):
            parser.error(f"{option_string} expects no values, a console LEVEL, or LEVEL FILE")
        level = given[0] if given else "DEBUG"
        file = given[1] if len(given) > 1 else None
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), (level, file)])


def existing_directory(path: str) -> str:
    """An argparse type: a directory that is there and readable."""
    if not Path(path).exists():
        raise argparse.ArgumentTypeError(f"The path '{path}' does not exist.")
    if not Path(path).is_dir():
        raise argparse.ArgumentTypeError(f"'{path}' is not a directory.")
    if not os.access(path, os.R_OK):
        raise argparse.ArgumentTypeError(f"You do not have read permissions for '{path}'.")
    return path


def build_parser(as_of: str) -> argparse.ArgumentParser:
    """The parser, with real ComfyUI's names, types and defaults of the time."""
    parser = argparse.ArgumentParser()
    add = parser.add_argument
    add("--as-of", choices=TIMES, default="2026", help="the simulator's own: when it is")
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
    add("--log-stdout", action="store_true")

    cache = parser.add_mutually_exclusive_group()
    cache.add_argument("--cache-classic", action="store_true")
    cache.add_argument("--cache-lru", type=int, default=0)
    cache.add_argument("--cache-none", action="store_true")

    switches, alternatives = list(_SWITCHES), list(_ALTERNATIVES)
    if as_of == "2025":
        switches += _SWITCHES_UNTIL_2025
        alternatives += _ALTERNATIVES_UNTIL_2025
        levels = [level for level in LEVELS if level != "DETAIL"]
        add("--verbose", default="INFO", const="DEBUG", nargs="?", choices=levels)
        add("--cuda-device", type=int, metavar="DEVICE_ID")
    else:
        switches += _SWITCHES_SINCE_2026
        alternatives += _ALTERNATIVES_SINCE_2026
        add("--verbose", action=Verbose, nargs="*", default=[], metavar="LEVEL FILE")
        add("--cuda-device", metavar="DEVICE_ID", help="a comma-separated list, or 'all'")
        add("--async-offload", nargs="?", const=2, type=int, metavar="NUM_STREAMS")
        add("--models-directory", type=existing_directory)
        add("--vram-headroom", type=float, default=0, help="gigabytes")
        add("--feature-flag", action="append", default=[], metavar="KEY[=VALUE]")
        add("--list-feature-flags", action="store_true")
        cache.add_argument("--cache-ram", nargs="*", type=float, default=[], metavar="GB")
        cache.add_argument("--high-ram", action="store_true")
    if as_of == "later":
        switches += _SWITCHES_LATER
        add("--disabled-nodes-config", metavar="PATH")
    for name in switches:
        add(f"--{name}", action="store_true")
    for names in alternatives:
        group = parser.add_mutually_exclusive_group()
        for name in names.split():
            group.add_argument(f"--{name}", action="store_true")
    return parser


def _parse() -> argparse.Namespace:
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--as-of", default="2026")
    parser = build_parser(first.parse_known_args()[0].as_of)
    found = parser.parse_args()
    if len(getattr(found, "cache_ram", [])) > 2:
        parser.error("--cache-ram accepts at most two values: active GB and inactive GB")
    return found


args: argparse.Namespace = _parse()
"""What this process was started with."""

SINCE_2026: bool = args.as_of != "2025"
"""Whether what came with 2026 is there."""

ASSETS: bool = (
    not args.disable_assets if args.as_of == "later" else SINCE_2026 and args.enable_assets
)
"""Whether the assets system is on."""
