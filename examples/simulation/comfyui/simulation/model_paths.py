"""extra_model_paths.yaml: accepts what real ComfyUI accepts, and crashes where it does."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import folder_paths
from simulation.flags import ROOT, args


def load(file: str) -> None:
    """Add the paths that file names.

    Any exception ends the start-up, as a missing or empty file and a list of paths do.
    """
    import yaml

    config: dict[str, dict[str, Any] | None] = yaml.safe_load(Path(file).read_text("utf-8"))
    beside = Path(os.path.abspath(file)).parent  # noqa: PTH100
    for section in config:
        entries = config[section]
        if entries is None:
            continue
        base = None
        if "base_path" in entries:
            base = beside / os.path.expandvars(os.path.expanduser(entries.pop("base_path")))  # noqa: PTH111
        is_default = bool(entries.pop("is_default", False))
        for folder_name, value in entries.items():
            for line in value.split("\n"):
                if line:
                    path = os.path.normpath((base or beside) / line)
                    logging.info("Adding extra search path %s %s", folder_name, path)
                    folder_paths.add_model_folder_path(folder_name, path, is_default)


def apply() -> None:
    """Take in the configured paths and directories; temp is set later, when it is wiped."""
    beside = ROOT / "extra_model_paths.yaml"
    if beside.is_file():
        load(str(beside))
    for files in args.extra_model_paths_config or []:
        for file in files:
            load(file)
    if args.output_directory:
        folder_paths.set_directory("output", args.output_directory)
    # Models that a node trained or merged are saved below the outputs and found there.
    for name in ("checkpoints", "clip", "vae", "diffusion_models", "loras"):
        folder_paths.add_model_folder_path(
            name, str(Path(folder_paths.get_output_directory(), name))
        )
    if args.input_directory:
        folder_paths.set_directory("input", args.input_directory)
    if args.user_directory:
        folder_paths.set_directory("user", args.user_directory)
