"""A ComfyUI-compatible server for machines without GPU or network.

It keeps real ComfyUI's order, pitfalls included: it wipes the temporary directory before it binds
the port, --quick-test-for-ci succeeds whatever the custom nodes do, and a port in use is noticed
last.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import shutil
import sys
import threading
import time
from pathlib import Path

# Parse the command line first: report a mistake before loading anything.
from simulation.flags import args

# isort: split
import folder_paths
from comfyui_version import __version__
from simulation import database, devices, logs, model_paths
from simulation.assets import catalogue
from simulation.flags import SINCE_2026


def execute_prestartup_script() -> None:
    """Run every prestartup_script.py. A failing one is logged.

    As in real ComfyUI the summary covers the last of several custom_nodes folders only, and a
    missing folder ends the start-up with FileNotFoundError.
    """
    if args.disable_all_custom_nodes and not args.whitelist_custom_nodes:
        return

    def execute_script(script: str) -> bool:
        try:
            spec = importlib.util.spec_from_file_location(script.removesuffix(".py"), script)
            assert spec is not None
            assert spec.loader is not None
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
            return True
        except Exception as problem:
            logging.error("Failed to execute startup-script: %s / %s", script, problem)
        return False

    times: list[tuple[float, str, bool]] = []
    for folder in folder_paths.get_folder_paths("custom_nodes"):
        times = []
        for path in Path(folder).iterdir():
            name = path.name
            script = path / "prestartup_script.py"
            if path.is_file() or name.endswith(".disabled") or not script.exists():
                continue
            if args.disable_all_custom_nodes and name not in args.whitelist_custom_nodes:
                logging.info(
                    "Prestartup Skipping %s due to disable_all_custom_nodes and"
                    " whitelist_custom_nodes",
                    name,
                )
                continue
            begin = time.perf_counter()
            ok = execute_script(str(script))
            times.append((time.perf_counter() - begin, str(path), ok))
    if times:
        logging.info("\nPrestartup times for custom nodes:")
        for seconds, shown, ok in sorted(times):
            failure = "" if ok else " (PRESTARTUP FAILED)"
            logging.info("%6.1f seconds%s: %s", seconds, failure, shown)
        logging.info("")


def remove_temp() -> None:
    """Delete the temporary directory."""
    shutil.rmtree(folder_paths.get_temp_directory(), ignore_errors=True)


def serve() -> None:
    """Load everything, then bind the port and serve until interrupted."""
    device = devices.find()
    logging.info("Device: %s", device.name)

    import execution
    import nodes
    import server
    from comfy import utils

    logging.info("Python version: %s", sys.version)
    logging.info("ComfyUI version: %s", __version__)
    if args.temp_directory:
        folder_paths.set_directory("temp", str(Path(args.temp_directory, "temp")))
    remove_temp()

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    prompt_server = server.PromptServer(loop, device)
    Path(folder_paths.get_user_directory()).mkdir(parents=True, exist_ok=True)
    wanted = not args.disable_all_custom_nodes or bool(args.whitelist_custom_nodes)
    loop.run_until_complete(
        nodes.init_extra_nodes(init_custom_nodes=wanted, init_api_nodes=not args.disable_api_nodes)
    )
    database.open_database()
    catalogue.scan("models", "input", "output")
    prompt_server.add_routes()
    utils.hooks.append(prompt_server.send_progress)
    threading.Thread(
        target=execution.work,
        args=(prompt_server.prompt_queue, prompt_server.executor, prompt_server.send_sync),
        daemon=True,
    ).start()
    if args.quick_test_for_ci:
        sys.exit(0)

    Path(folder_paths.get_temp_directory()).mkdir(parents=True, exist_ok=True)
    try:
        loop.run_until_complete(prompt_server.run())
    except KeyboardInterrupt:
        logging.info("\nStopped server")
    except BaseException:
        if SINCE_2026:
            remove_temp()
        raise
    remove_temp()


def main() -> None:
    """Start up, in ComfyUI's order."""
    if SINCE_2026 and args.list_feature_flags:
        print("{}")
        sys.exit(0)
    logs.start()
    Path(folder_paths.base_path, "input").mkdir(parents=True, exist_ok=True)
    model_paths.apply()
    execute_prestartup_script()
    devices.choose_visible()
    serve()


if __name__ == "__main__":
    main()
