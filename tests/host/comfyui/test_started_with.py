"""What a command line says of its instance, also while it is still being started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from comfy_machine.host.comfyui import started_with
from comfy_machine.host.comfyui.started_with import StartedWith
from tests.conftest import MachineMaker

GENERATION = Path("/ws/.machine/generations/abc")
COMFYUI = [f"{GENERATION}/environment/bin/python", f"{GENERATION}/ComfyUI/main.py"]
USUAL = [*COMFYUI, "--listen", "10.0.0.5", "--port", "8188", "--cpu"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (USUAL, StartedWith(GENERATION, "10.0.0.5")),
        (["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *USUAL, ""],
         StartedWith(GENERATION, "10.0.0.5")),
        (["python", "-I", "/p/shim.py", "--nice", "5", "--", *USUAL],
         StartedWith(GENERATION, "10.0.0.5")),
        ([*USUAL, "--disable-all-custom-nodes"], StartedWith(GENERATION, "10.0.0.5", frozenset())),
        ([*USUAL, "--disable-all-custom-nodes", "--whitelist-custom-nodes", "a", "b", "--lowvram"],
         StartedWith(GENERATION, "10.0.0.5", frozenset("ab"))),
        ([*COMFYUI, "--listen"], StartedWith(GENERATION)),
        (["python", "main.py", "--listen", "::1"], StartedWith()),
        ([], StartedWith()),
    ],
)  # fmt: skip
def test_a_command_line_says_the_generation_the_address_and_the_nodes(
    words: list[str], told: StartedWith
) -> None:
    assert started_with.read(words) == told


def test_a_process_that_says_nothing_is_asked_where_machine_yaml_has_it() -> None:
    assert started_with.of(os.getpid()) == StartedWith()
    assert started_with.listens_on(os.getpid(), "::1") == "::1"
    assert started_with.of(1 << 22) == StartedWith()


def test_a_running_instance_says_what_it_was_started_with(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit()
    told = started_with.of(rig.running()["comfyui-gpu0"].pid)
    assert told == StartedWith(rig.layout.current.resolve(), "127.0.0.1")
