"""Custom nodes: really imported, in ComfyUI's order and with its log lines."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import logging
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import folder_paths
import nodes
from simulation.flags import args


def _wanted(name: str) -> bool:
    return not args.disable_all_custom_nodes or name in args.whitelist_custom_nodes


def _enabled() -> bool:
    return not args.disable_all_custom_nodes or bool(args.whitelist_custom_nodes)


def _execute(name: str, file: Path) -> Any:
    """Run a file as the module of that name."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _report(title: str, failure: str, times: list[tuple[float, str, bool]]) -> None:
    if not times:
        return
    logging.info("\n%s", title)
    for seconds, path, ok in sorted(times):
        logging.info("%6.1f seconds%s: %s", seconds, "" if ok else f" ({failure})", path)
    logging.info("")


def prestart() -> None:
    """Run every prestartup_script.py. A failing one is logged.

    As in real ComfyUI the summary covers the last of several custom_nodes folders only, and a
    missing folder ends the start-up with FileNotFoundError.
    """
    if not _enabled():
        return
    times: list[tuple[float, str, bool]] = []
    for folder in folder_paths.get_folder_paths("custom_nodes"):
        times = []
        for path in Path(folder).iterdir():
            name = path.name
            script = path / "prestartup_script.py"
            if path.is_file() or name.endswith(".disabled") or not script.exists():
                continue
            if not _wanted(name):
                logging.info(
                    "Prestartup Skipping %s due to disable_all_custom_nodes and"
                    " whitelist_custom_nodes",
                    name,
                )
                continue
            start = time.perf_counter()
            try:
                _execute(str(script.with_suffix("")), script)
                ok = True
            except Exception as problem:
                logging.error("Failed to execute startup-script: %s / %s", script, problem)
                ok = False
            times.append((time.perf_counter() - start, str(path), ok))
    _report("Prestartup times for custom nodes:", "PRESTARTUP FAILED", times)


def _from_entrypoint(module: Any, path: Path) -> dict[str, Any] | None:
    """The nodes of comfy_entrypoint; None, and a line in the log, if it is not right."""
    from comfy_api.latest import ComfyExtension

    async def collect() -> list[Any] | None:
        extension = module.comfy_entrypoint()
        if inspect.isawaitable(extension):
            extension = await extension
        if isinstance(extension, ComfyExtension):
            return list(await extension.get_node_list())
        logging.warning("comfy_entrypoint in %s did not return a ComfyExtension, skipping.", path)
        return None

    try:
        found = asyncio.run(collect())
        schemas = [(node.GET_SCHEMA(), node) for node in found or []]
    except Exception as problem:
        logging.warning("Error while calling comfy_entrypoint in %s: %s", path, problem)
        return None
    for schema, _ in schemas:
        if schema.display_name is not None:
            nodes.NODE_DISPLAY_NAME_MAPPINGS[schema.node_id] = schema.display_name
    return None if found is None else {schema.node_id: node for schema, node in schemas}


def _import(path: Path, builtin: set[str]) -> bool:
    """Import one custom node and take in its classes; built-in names stay as they are."""
    logging.debug("Trying to load custom node %s", path)
    try:
        if path.is_file():
            module = _execute(str(path.with_suffix("")), path)
        else:
            module = _execute(str(path).replace(".", "_x_"), path / "__init__.py")
        found = getattr(module, "NODE_CLASS_MAPPINGS", None)
        if found is None and hasattr(module, "comfy_entrypoint"):
            found = _from_entrypoint(module, path)
            if found is None:
                return False
        elif found is None:
            logging.warning(
                "Skip %s module for custom nodes due to the lack of NODE_CLASS_MAPPINGS or"
                " NODES_LIST (need one).",
                path,
            )
            return False
        for name, node in found.items():
            if name not in builtin:
                nodes.NODE_CLASS_MAPPINGS[name] = node
                stem = path.stem if path.is_file() else path.name
                node.RELATIVE_PYTHON_MODULE = f"custom_nodes.{stem}"
        names = getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", None) or {}
        nodes.NODE_DISPLAY_NAME_MAPPINGS.update(names)
    except Exception as problem:
        logging.warning(traceback.format_exc())
        logging.warning("Cannot import %s module for custom nodes: %s", path, problem)
        return False
    return True


def _modules(folder: str) -> Iterator[Path]:
    for path in Path(folder).iterdir():
        name = path.name
        if name == "__pycache__" or name.endswith(".disabled"):
            continue
        if path.is_file() and path.suffix != ".py":
            continue
        if not _wanted(name):
            logging.info(
                "Skipping %s due to disable_all_custom_nodes and whitelist_custom_nodes", name
            )
            continue
        yield path


def load() -> None:
    """Import all custom nodes. A failing one is logged; one that calls sys.exit() is obeyed."""
    if not _enabled():
        logging.info("Skipping loading of custom nodes")
        return
    builtin = set(nodes.NODE_CLASS_MAPPINGS)
    times: list[tuple[float, str, bool]] = []
    for folder in folder_paths.get_folder_paths("custom_nodes"):
        for path in _modules(folder):
            start = time.perf_counter()
            ok = _import(path, builtin)
            times.append((time.perf_counter() - start, str(path), ok))
    _report("Import times for custom nodes:", "IMPORT FAILED", times)
