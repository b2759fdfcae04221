"""The line in an environment by which ComfyUI's process loads what is to run inside it."""

from __future__ import annotations

from pathlib import Path

from ..system import files

FILE = "comfy_machine.pth"
LINE = (
    'import os; os.environ.get("COMFY_MACHINE_INSIDE_PID") == str(os.getpid()) and '
    'exec(compile(open(os.environ["COMFY_MACHINE_INSIDE"], encoding="utf-8").read(), '
    'os.environ["COMFY_MACHINE_INSIDE"], "exec"), {"__name__": "comfy_machine_entry", '
    '"__file__": os.environ["COMFY_MACHINE_INSIDE"]})\n'
)
"""`site` executes it at each start of Python, and continues whatever it raises. In every process
but the one that the exec shim names it compares two numbers."""


def write(site_packages: Path) -> None:
    """Put the line there."""
    files.write_text(site_packages / FILE, LINE)
