"""Environment variables in machine.yaml: their names, and `${NAME}` in their values."""

from __future__ import annotations

import re
from collections.abc import Mapping

VARIABLE = r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"
"""The pattern of one `${NAME}`."""
_VARIABLE = re.compile(VARIABLE)

DEVICE = "CUDA_VISIBLE_DEVICES"
"""The variable that selects a process's GPU; an instance may name a part of one (MIG-…)."""
OUR_ENV = {
    DEVICE: "use instances.gpus",
    "CUDA_DEVICE_ORDER": "use instances.gpus",
    "COMFYUI_PORT": "use instances.port_start",
    "PYTHONDONTWRITEBYTECODE": "without bytecode every start takes three times as long",
}


INSTANCE_REFERENCES = ("gpu", "host", "name", "port", "url")
"""What a worker's `env` may name of its instance, as ${instance.port}."""
_INSTANCE = re.compile(r"\$\{instance\.([a-z]+)\}")


def expand_instance(text: str, values: Mapping[str, str]) -> str:
    """Replace each `${instance.NAME}` by its value; `values` has INSTANCE_REFERENCES."""
    return _INSTANCE.sub(lambda match: values[match[1]], text)


def names_instance(text: str) -> bool:
    return _INSTANCE.search(text) is not None


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Replace each `${NAME}` by its value. Raises KeyError with the name of an unset variable."""
    return _VARIABLE.sub(lambda match: environ[match[0][2:-1]], text)


def unset(text: str, environ: Mapping[str, str]) -> list[str]:
    """The variables in a text that are not set."""
    names = [found[2:-1] for found in _VARIABLE.findall(text)]
    return [name for name in dict.fromkeys(names) if name not in environ]


def check_variable(name: str) -> str:
    """The name of a variable that machine.yaml may set. Raises ValueError."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("not a variable's name: letters, digits and _, no digit first")
    if name in OUR_ENV or name.startswith("COMFY_MACHINE_"):
        raise ValueError(f"is set by the machine: {OUR_ENV.get(name, 'remove it')}")
    return name


def check_instance_variable(name: str) -> str:
    """The name of a variable that an instance may have. Raises ValueError."""
    return name if name == DEVICE else check_variable(name)


def check_worker_variable(name: str) -> str:
    """The name of a variable that a worker may have. Raises ValueError."""
    return name if name == "COMFYUI_PORT" else check_variable(name)


def check_worker_value(text: str) -> str:
    """A value with any `${NAME}` and `${instance.NAME}`. Raises ValueError, which doesn't repeat
    it."""
    known = ", ".join(f"${{instance.{name}}}" for name in INSTANCE_REFERENCES)
    if not {*_INSTANCE.findall(text)} <= {*INSTANCE_REFERENCES}:
        raise ValueError(f"of an instance there are {known}")
    check_value(_INSTANCE.sub("", text))
    return text


def check_device(text: object) -> str | None:
    """What is wrong with an instance's CUDA_VISIBLE_DEVICES: it may only name a part of a GPU."""
    if isinstance(text, str) and text.startswith(("MIG-", "${")):
        return None
    return f"is set by the machine: {OUR_ENV[DEVICE]}, or name a part of a GPU, MIG-…"


def check_value(text: str) -> str:
    """A variable's value, with any `${NAME}`. Raises ValueError, which doesn't repeat it."""
    if "\0" in text:
        raise ValueError("holds a NUL character")
    if "${" in _VARIABLE.sub("", text):
        raise ValueError("a variable is written ${NAME}, with nothing else between the braces")
    return text
