"""The catalogue of models, inputs and outputs that ComfyUI has since 2026: off unless asked for.

`--as-of later` has it on by default. Nothing is kept in the database: a scan lists the files.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

import folder_paths
from simulation.flags import ASSETS, args
from simulation.http import web


class Catalogue:
    """What the scans have found, and how many there were."""

    def __init__(self) -> None:
        self.scans = 0
        self._lock = threading.Lock()
        self._found: dict[str, dict[str, Any]] = {}

    def scan(self, *roots: str) -> None:
        """Begin to look through folders, in a thread of its own, if the system is on."""
        if not ASSETS:
            return
        logging.info("Seeder start (roots=%s, phase=full)", roots)
        self.scans += 1
        threading.Thread(target=self._scan, args=roots, name="_AssetSeeder", daemon=True).start()

    def _scan(self, *roots: str) -> None:
        with self._lock:
            for root in roots:
                folder = folder_paths.get_directory_by_type(root) or folder_paths.models_dir
                for path, _, names in os.walk(folder, followlinks=True):
                    for name in names:
                        file = Path(path, name)
                        size = file.stat().st_size if file.exists() else 0
                        self._found[str(file)] = {"name": name, "size": size, "tags": [root]}

    async def list_assets(self, _: web.Request) -> web.Response:
        """GET /api/assets; `simulated_scans` is the simulator's own."""
        if not ASSETS:
            flag = "without --disable-assets" if args.as_of == "later" else "with --enable-assets"
            text = f"Assets system is disabled. Start the server {flag} to use this feature."
            error = {"code": "SERVICE_DISABLED", "message": text, "details": {}}
            return web.json_response({"error": error}, status=503)
        with self._lock:
            found = list(self._found.values())
        answer = {"assets": found, "total": len(found), "has_more": False}
        return web.json_response(answer | {"simulated_scans": self.scans})


catalogue = Catalogue()
