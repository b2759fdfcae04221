"""Run by the environment's `.pth` line at the start of Python; `__file__` is this file.

Makes this folder the package `comfy_machine_inside` without adding it to the path, and attaches
the modules whose variables are set. An error is printed and disables only its own module.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback

PACKAGE = "comfy_machine_inside"

MODULES = {
    "COMFY_MACHINE_REPORT": "report",
    "COMFY_MACHINE_CHANGES": "changes",
    "COMFY_MACHINE_PROOF": "proof",
    "COMFY_MACHINE_MEMORY": "memory",
    "COMFY_MACHINE_ORPHANS": "orphans",
    "COMFY_MACHINE_DRAIN": "refusal",
    "COMFY_MACHINE_LOG_TIMES": "log_times",
}
"""Variable → the module that is attached when it is set."""


def main() -> None:
    folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120  pathlib takes longer to load
    spec = importlib.util.spec_from_file_location(
        PACKAGE, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]  # noqa: PTH118
    )  # fmt: skip
    if spec is None or spec.loader is None or PACKAGE in sys.modules:
        # site-packages may be processed twice, as lib and as lib64.
        return
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)
    for variable, name in MODULES.items():
        if os.environ.get(variable):
            try:
                importlib.import_module(f"{PACKAGE}.{name}").attach()
            except Exception:
                traceback.print_exc()


main()
