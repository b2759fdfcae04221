"""The node classes, and the loading of custom nodes.

Custom nodes import this module and wrap its functions, so the names are ComfyUI's, and each call
looks its function up here.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import os
import sys
import time
import traceback
from collections.abc import Collection
from pathlib import Path
from typing import Any

import folder_paths
from comfy import model_management
from comfy_api.latest import ComfyExtension
from simulation import files
from simulation.builtin import (
    MAX_RESOLUTION,
    CheckpointLoaderSimple,
    EmptyImage,
    ImageInvert,
    ImageScale,
    LoadImage,
    PreviewImage,
    SaveImage,
    VAEDecode,
)
from simulation.flags import ROOT, SINCE_2026, args

__all__ = ["MAX_RESOLUTION"]

NODE_CLASS_MAPPINGS: dict[str, Any] = {
    node.__name__: node
    for node in (
        CheckpointLoaderSimple,
        VAEDecode,
        SaveImage,
        PreviewImage,
        LoadImage,
        ImageScale,
        ImageInvert,
        EmptyImage,
    )
}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "CheckpointLoaderSimple": "Load Checkpoint",
    "ImageInvert": "Invert Image",
    "ImageScale": "Upscale Image",
    "LoadImage": "Load Image",
    "PreviewImage": "Preview Image",
    "SaveImage": "Save Image",
    "VAEDecode": "VAE Decode",
}
if SINCE_2026:
    NODE_DISPLAY_NAME_MAPPINGS |= {
        "EmptyImage": "Empty Image",
        "ImageInvert": "Invert Image Colors",
    }
EXTENSION_WEB_DIRS: dict[str, str] = {}
LOADED_MODULE_DIRS: dict[str, str] = {}
"""Module name → directory, also of packs that fail once their module was executed."""

EXTRAS = ["nodes_preview_any.py", "nodes_string.py"]


def interrupt_processing(value: bool = True) -> None:
    model_management.interrupt_current_processing(value)


def get_module_name(module_path: str) -> str:
    """The name of a pack: its directory's, or its file's without .py."""
    path = Path(module_path)
    return path.stem if path.is_file() else path.name


async def load_custom_node(
    module_path: str, ignore: Collection[str] = frozenset(), module_parent: str = "custom_nodes"
) -> bool:
    """Import one pack and take in its classes but those named in ignore. A failure is logged."""
    path = Path(module_path)
    module_name = get_module_name(module_path)
    if path.is_file():
        module_name = sys_module_name = str(path.with_suffix(""))
        file, module_dir = path, path.parent
    else:
        sys_module_name = module_path.replace(".", "_x_")
        file, module_dir = path / "__init__.py", path
    try:
        logging.debug("Trying to load custom node %s", module_path)
        spec = importlib.util.spec_from_file_location(sys_module_name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[sys_module_name] = module
        spec.loader.exec_module(module)

        LOADED_MODULE_DIRS[module_name] = os.path.abspath(module_dir)  # noqa: PTH100
        web = getattr(module, "WEB_DIRECTORY", None)
        if web is not None and (module_dir / web).is_dir():
            EXTENSION_WEB_DIRS[module_name] = os.path.abspath(module_dir / web)  # noqa: PTH100

        parent = f"{module_parent}.{get_module_name(module_path)}"
        if getattr(module, "NODE_CLASS_MAPPINGS", None) is not None:
            _take_mappings(module, ignore, parent)
            return True
        if hasattr(module, "comfy_entrypoint"):
            return await _take_extension(module.comfy_entrypoint, module_path, ignore, parent)
        logging.warning(
            "Skip %s module for custom nodes due to the lack of NODE_CLASS_MAPPINGS or %s"
            " (need one).",
            module_path,
            "comfy_entrypoint" if SINCE_2026 else "NODES_LIST",
        )
        return False
    except Exception as problem:
        logging.warning(traceback.format_exc())
        logging.warning("Cannot import %s module for custom nodes: %s", module_path, problem)
        return False


def _take_mappings(module: Any, ignore: Collection[str], parent: str) -> None:
    for name, node in module.NODE_CLASS_MAPPINGS.items():
        if name not in ignore:
            NODE_CLASS_MAPPINGS[name] = node
            node.RELATIVE_PYTHON_MODULE = parent
    NODE_DISPLAY_NAME_MAPPINGS.update(getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", None) or {})


async def _take_extension(
    entrypoint: Any, module_path: str, ignore: Collection[str], parent: str
) -> bool:
    """Take in the nodes of a comfy_entrypoint; False, and a line in the log, if it is not right."""
    if not callable(entrypoint):
        logging.warning("comfy_entrypoint in %s is not callable, skipping.", module_path)
        return False
    try:
        extension = entrypoint()
        if inspect.iscoroutinefunction(entrypoint):
            extension = await extension
        if not isinstance(extension, ComfyExtension):
            logging.warning(
                "comfy_entrypoint in %s did not return a ComfyExtension, skipping.", module_path
            )
            return False
        if SINCE_2026:
            await extension.on_load()
        found = await extension.get_node_list()
        if not isinstance(found, list):
            logging.warning(
                "comfy_entrypoint in %s did not return a list of nodes, skipping.", module_path
            )
            return False
        for node in found:
            schema = node.GET_SCHEMA()
            if schema.node_id not in ignore:
                NODE_CLASS_MAPPINGS[schema.node_id] = node
                node.RELATIVE_PYTHON_MODULE = parent  # type: ignore[attr-defined]
            if schema.display_name is not None:
                NODE_DISPLAY_NAME_MAPPINGS[schema.node_id] = schema.display_name
        return True
    except Exception as problem:
        logging.warning("Error while calling comfy_entrypoint in %s: %s", module_path, problem)
        return False


async def init_external_custom_nodes() -> None:
    """Load all custom nodes. A failing one is logged; one that calls sys.exit() is obeyed."""
    if SINCE_2026:
        sys.path.insert(0, str(ROOT / "comfy"))
    builtin = set(NODE_CLASS_MAPPINGS)
    times: list[tuple[float, str, bool]] = []
    for folder in folder_paths.get_folder_paths("custom_nodes"):
        for path in Path(folder).iterdir():
            name = path.name
            if name == "__pycache__" or (path.is_file() and path.suffix != ".py"):
                continue
            if name.endswith(".disabled"):
                continue
            if args.disable_all_custom_nodes and name not in args.whitelist_custom_nodes:
                logging.info(
                    "Skipping %s due to disable_all_custom_nodes and whitelist_custom_nodes", name
                )
                continue
            begin = time.perf_counter()
            ok = await load_custom_node(str(path), builtin, module_parent="custom_nodes")
            times.append((time.perf_counter() - begin, str(path), ok))
    if times:
        logging.info("\nImport times for custom nodes:")
        for seconds, shown, ok in sorted(times):
            failure = "" if ok else " (IMPORT FAILED)"
            logging.info("%6.1f seconds%s: %s", seconds, failure, shown)
        logging.info("")


async def init_builtin_extra_nodes() -> list[str]:
    """Load the files of comfy_extras; those that failed come back.

    Since 2026 a missing input directory is made here, as by real nodes that look into it.
    """
    if SINCE_2026:
        files.make_input_folder()
    folder = ROOT / "comfy_extras"
    return [
        name
        for name in EXTRAS
        if not await load_custom_node(str(folder / name), module_parent="comfy_extras")
    ]


async def init_extra_nodes(
    init_custom_nodes: bool = True, init_api_nodes: bool = True
) -> list[str]:
    """Load the built-in extras, then the custom nodes. There are no API nodes here."""
    failed = await init_builtin_extra_nodes()
    if init_custom_nodes:
        await init_external_custom_nodes()
    else:
        logging.info("Skipping loading of custom nodes")
    if failed:
        logging.warning(
            "WARNING: some comfy_extras/ nodes did not import correctly. This may be because they"
            " are missing some dependencies.\n"
        )
        for name in failed:
            logging.warning("IMPORT FAILED: %s", name)
        logging.warning(
            "\nThis issue might be caused by new missing dependencies added the last time you"
            " updated ComfyUI."
        )
        logging.warning("Please do a: pip install -r requirements.txt")
        logging.warning("")
    return failed
