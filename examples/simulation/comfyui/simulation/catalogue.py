"""Listings: node classes, models, model folders, and the log."""

from __future__ import annotations

import logging
import traceback
from pathlib import PurePath
from typing import Any

import folder_paths
import nodes
from simulation import files, logs
from simulation.assets import catalogue as assets
from simulation.flags import SINCE_2026
from simulation.http import web


def describe(name: str) -> dict[str, Any]:
    """A node class as /object_info shows it."""
    node = nodes.NODE_CLASS_MAPPINGS[name]
    inputs = node.INPUT_TYPES()
    outputs = node.RETURN_TYPES
    info = {
        "input": inputs,
        "input_order": {category: list(declared) for category, declared in inputs.items()},
        "output": outputs,
        "output_is_list": getattr(node, "OUTPUT_IS_LIST", [False] * len(outputs)),
        "output_name": getattr(node, "RETURN_NAMES", outputs),
        "name": name,
        "display_name": nodes.NODE_DISPLAY_NAME_MAPPINGS.get(name, name),
        "description": getattr(node, "DESCRIPTION", ""),
        "python_module": getattr(node, "RELATIVE_PYTHON_MODULE", "nodes"),
        "category": getattr(node, "CATEGORY", "sd"),
        "output_node": getattr(node, "OUTPUT_NODE", False) is True,
    }
    if SINCE_2026:
        info |= {
            "is_input_list": getattr(node, "INPUT_IS_LIST", False),
            "has_intermediate_output": getattr(node, "HAS_INTERMEDIATE_OUTPUT", False) is True,
            "search_aliases": getattr(node, "SEARCH_ALIASES", []),
        }
        if hasattr(node, "ESSENTIALS_CATEGORY"):
            info["essentials_category"] = node.ESSENTIALS_CATEGORY
        if getattr(node, "DEV_ONLY", False):
            info["dev_only"] = True
    if hasattr(node, "OUTPUT_TOOLTIPS"):
        info["output_tooltips"] = node.OUTPUT_TOOLTIPS
    if getattr(node, "DEPRECATED", False):
        info["deprecated"] = True
    if getattr(node, "EXPERIMENTAL", False):
        info["experimental"] = True
    return info


async def get_embeddings(_: web.Request) -> web.Response:
    names = folder_paths.get_filename_list("embeddings")
    return web.json_response([str(PurePath(name).with_suffix("")) for name in names])


async def get_extensions(_: web.Request) -> web.Response:
    return web.json_response([])


async def get_model_folders(_: web.Request) -> web.Response:
    return web.json_response(list(folder_paths.folder_names_and_paths))


async def get_models(request: web.Request) -> web.Response:
    folder = request.match_info["folder"]
    if folder not in folder_paths.folder_names_and_paths:
        return web.Response(status=404)
    return web.json_response(folder_paths.get_filename_list(folder))


async def get_object_info(_: web.Request) -> web.Response:
    """All node classes. With the assets system on it begins a scan of all folders."""
    assets.scan("models", "input", "output")
    described = {}
    for name in nodes.NODE_CLASS_MAPPINGS:
        try:
            described[name] = describe(name)
        except Exception:
            logging.error(
                "[ERROR] An error occurred while retrieving information for the '%s' node.\n%s",
                name,
                traceback.format_exc(),
            )
    # Nodes of real ComfyUI create this folder, so a missing input directory, and with it
    # LoadImage, exists from the second request on; since 2026 from the first.
    files.make_input_folder()
    return web.json_response(described)


async def get_node_info(request: web.Request) -> web.Response:
    name = request.match_info["node_class"]
    known = name in nodes.NODE_CLASS_MAPPINGS
    return web.json_response({name: describe(name)} if known else {})


async def get_logs(_: web.Request) -> web.Response:
    return web.json_response(logs.text())


async def get_folder_paths(_: web.Request) -> web.Response:
    known = folder_paths.folder_names_and_paths.items()
    return web.json_response({name: paths for name, (paths, _) in known})
