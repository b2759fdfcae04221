"""A ComfyUI-compatible server for machines without GPU or network.

It does things in real ComfyUI's order, traps included: the temporary directory is wiped before
the port is bound, --quick-test-for-ci succeeds whatever the custom nodes do, and a port that is
taken is found out last.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
import sys
import threading
from pathlib import Path

# The command line comes first: a mistake in it is answered before anything is loaded.
from simulation.flags import args

# isort: split
import folder_paths
from comfyui_version import __version__
from simulation import devices, extensions, logs, model_paths


def remove_temp() -> None:
    """Delete the temporary directory."""
    shutil.rmtree(folder_paths.get_temp_directory(), ignore_errors=True)


def open_database() -> None:
    """Open the SQLite file of --database-url, and make it; what goes wrong is only logged."""
    try:
        prefix = "sqlite:///"
        if not args.database_url.startswith(prefix):
            raise ValueError(f"Unsupported database URL '{args.database_url}'.")
        sqlite3.connect(args.database_url.removeprefix(prefix)).close()
    except (ValueError, sqlite3.Error) as problem:
        logging.error("Failed to initialize database. %s", problem)


def serve() -> None:
    """Load everything, then bind the port and serve until interrupted."""
    device = devices.find()
    logging.info("Device: %s", device.name)

    import execution
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
    extensions.load()
    open_database()
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
    remove_temp()


def main() -> None:
    """Start up, in ComfyUI's order."""
    logs.start(args.verbose, args.log_stdout)
    Path(folder_paths.base_path, "input").mkdir(parents=True, exist_ok=True)
    model_paths.apply()
    extensions.prestart()
    devices.choose_visible()
    serve()


if __name__ == "__main__":
    main()
