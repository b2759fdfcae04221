"""Environment variables in machine.yaml: their names, and `${NAME}` in their values."""

from __future__ import annotations

import re
from collections.abc import Mapping

VARIABLE = r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"
"""The pattern of one `${NAME}`."""
_VARIABLE = re.compile(VARIABLE)

DEVICE = "CUDA_VISIBLE_DEVICES"
"""What says which GPU a process sees; an instance's may name a part of one (MIG-…)."""
OUR_ENV = {
    DEVICE: "use instances.gpus",
    "CUDA_DEVICE_ORDER": "use instances.gpus",
    "COMFYUI_PORT": "use instances.port_start",
    "PYTHONDONTWRITEBYTECODE": "without bytecode every start takes three times as long",
}


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Put the values of `${NAME}` in. Raises KeyError with the name that has none."""
    return _VARIABLE.sub(lambda match: environ[match[0][2:-1]], text)


def unset(text: str, environ: Mapping[str, str]) -> list[str]:
    """The names in a text that have no value."""
    names = [found[2:-1] for found in _VARIABLE.findall(text)]
    return [name for name in dict.fromkeys(names) if name not in environ]


def check_variable(name: str) -> str:
    """A variable that machine.yaml may set. Raises ValueError."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("not a variable's name: letters, digits and _, no digit first")
    if name in OUR_ENV or name.startswith("COMFY_MACHINE_"):
        raise ValueError(f"is set by the machine: {OUR_ENV.get(name, 'remove it')}")
    return name


def check_instance_variable(name: str) -> str:
    """A variable that an instance may have. Raises ValueError."""
    return name if name == DEVICE else check_variable(name)


def check_device(text: object) -> str | None:
    """What is wrong with an instance's own CUDA_VISIBLE_DEVICES; only parts of a GPU are named."""
    if isinstance(text, str) and text.startswith(("MIG-", "${")):
        return None
    return f"is set by the machine: {OUR_ENV[DEVICE]}, or name a part of a GPU, MIG-…"


def check_value(text: str) -> str:
    """A variable's value, in which `${NAME}` may stand. Raises ValueError, never repeating it."""
    if "\0" in text:
        raise ValueError("holds a NUL character")
    if "${" in _VARIABLE.sub("", text):
        raise ValueError("a variable is written ${NAME}, with nothing else between the braces")
    return text
