"""What the code of a ComfyUI says of itself, asked of the simulator and of made-up ones."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from comfy_machine.host.comfyui import source_facts
from comfy_machine.host.comfyui.source_facts import Code
from comfy_machine.host.system import process
from tests.rig import SIMULATOR, snapshot

PYTHON = Path(sys.executable)


def ask(checkout: Path, tmp_path: Path) -> Code:
    env = process.allowed_environment(os.environ)
    return source_facts.ask(PYTHON, checkout, env, tmp_path / "log")


def refused(tmp_path: Path, *args: str) -> tuple[int, str] | None:
    env = process.allowed_environment(os.environ)
    return source_facts.first_refused(PYTHON, SIMULATOR, env, tmp_path / "log", args)


def test_a_comfyui_names_its_version_flags_and_folder_types(tmp_path: Path) -> None:
    before = snapshot(SIMULATOR)
    code = ask(SIMULATOR, tmp_path)
    assert code.version == "", "the simulator has several"
    assert code.flags
    assert {"--listen", "--fp8_e4m3fn-text-enc", "--extra-model-paths-config"} <= code.flags
    assert code.folder_types
    assert set(code.folder_types["text_encoders"]) == {"text_encoders", "clip"}
    assert code.folder_types["custom_nodes"] == ()
    assert snapshot(SIMULATOR) == before, "asking writes nothing"


def test_a_receipt_holds_all_of_it(tmp_path: Path) -> None:
    code = ask(SIMULATOR, tmp_path)
    assert source_facts.of(code.receipt()) == code


@pytest.mark.parametrize("receipt", [None, 5, [], {}, {"flags": 5, "version": 1}])
def test_by_a_receipt_of_another_shape_nothing_is_known(receipt: object) -> None:
    assert source_facts.of(receipt) == Code()
    assert source_facts.of(receipt).knows("--anything")


@pytest.mark.parametrize(
    "main",
    ["import torch_of_the_future", "print('usage: none')", "raise SystemExit(3)", "not Python"],
)
def test_what_can_not_be_found_out_is_not_known(tmp_path: Path, main: str) -> None:
    (tmp_path / "main.py").write_text(main)
    assert ask(tmp_path, tmp_path) == Code()


def test_what_was_not_known_is_asked_again_and_what_was_stays(tmp_path: Path) -> None:
    known = Code("1", flags=frozenset({"--only"}))
    env = process.allowed_environment(os.environ)
    code = source_facts.ask(PYTHON, SIMULATOR, env, tmp_path / "log", known)
    assert code.flags == frozenset({"--only"})
    assert code.folder_types


def test_no_flag_is_taken_from_the_words_about_another() -> None:
    said = """
usage: main.py [-h] [--short] [--very-long-name-of-a-flag VALUE [VALUE ...]]

options:
  -h, --help            show this help message and exit
  --short               Not what
                        --other does; see --third.
  --very-long-name-of-a-flag VALUE [VALUE ...]
                        Long.
  --yes, --no-yes       One of two.
  -v X, --value X       Both names.
"""
    names = "-h --help --short --very-long-name-of-a-flag --yes --no-yes -v --value"
    assert source_facts.parse_flags(said) == frozenset(names.split())


def test_a_wrong_value_is_named_by_its_place(tmp_path: Path) -> None:
    assert refused(tmp_path, "--reserve-vram", "2", "--fast") is None
    assert refused(tmp_path, "--fast", "--reserve-vram", "much") == (
        1,
        "argument --reserve-vram: invalid float value: 'much'",
    )
    found = refused(tmp_path, "--lowvram", "--fast", "--highvram")
    assert found
    assert found[0] == 2, "two flags that exclude each other: the second"
