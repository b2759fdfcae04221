"""The .pth line of an environment that loads our code into ComfyUI's process."""

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
"""`site` executes it at each start of Python and ignores its errors. It only loads code in the
process that the exec shim names; in others it compares two numbers."""


def write(site_packages: Path) -> None:
    """Add the line to an environment."""
    files.write_text(site_packages / FILE, LINE)


def is_there(site_packages: Path) -> bool:
    """Whether the environment has the line, of this version or another."""
    try:
        return b"COMFY_MACHINE_INSIDE" in files.read_bytes(site_packages / FILE)
    except OSError:
        return False
