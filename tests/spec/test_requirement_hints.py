"""Lines that people write for other tools, and what machine.yaml says to write."""

from __future__ import annotations

import json

import pytest

from comfy_machine.spec.requirement_hints import LONGEST, write_instead
from tests.spec.conftest import Lines, Load


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("torchaudio=2.11", "torchaudio==2.11"),
        ("numpy = 2", "numpy==2"),
        ("numpy 2.1", "numpy==2.1"),
        ("numpy:2", "numpy==2"),
        ("numpy@2.1", "numpy==2.1"),
        ("numpy=>2", "numpy>=2"),
        ("numpy =< 2", "numpy<= 2"),
        ("numpy>=2<3", "numpy>=2,<3"),
        ("numpy>=2 <3", "numpy>=2,<3"),
        ("numpy>2 and <3", "numpy>2,<3"),
        ("numpy^2.1", "numpy>=2.1,<3"),
        ("numpy~2", "numpy~=2.0"),
        ("numpy~2.1", "numpy~=2.1"),
        ("numpy!2", "numpy!=2"),
        ("numpy==2.x", "numpy==2.*"),
        ("numpy==latest", "numpy"),
        ("numpy latest", "numpy"),
        ("pip install numpy==2", "numpy==2"),
        ("numpy<2 # as ComfyUI needs", "numpy<2"),
        ("numpy scipy", "[numpy, scipy]"),
        ("numpy>=2, scipy", "[numpy>=2, scipy]"),
        ("numpy>=2 scipy>1", "[numpy>=2, scipy>1]"),
        ("uvicorn[standard]=0.3", "uvicorn[standard]==0.3"),
    ],
)
def test_a_slip_is_told_with_what_to_write(lines: Lines, text: str, instead: str) -> None:
    told = f"machine.yaml:3: python.packages[0]: not a requirement: write {instead}"
    assert lines(f"python: {{packages: [{json.dumps(text)}]}}") == [told]


@pytest.mark.parametrize("text", ["numpy==", "numpy; python", "numpy[all", "_x", "?", "äö"])
def test_of_what_can_not_be_understood_nothing_is_guessed(lines: Lines, text: str) -> None:
    told = "machine.yaml:3: python.packages[0]: not a requirement such as numpy<2"
    assert lines(f"python: {{packages: [{json.dumps(text)}]}}") == [told]
    assert write_instead("a." * LONGEST) == ""


@pytest.mark.parametrize(
    "text", ["torch>2 ,<3", "numpy (>2)", "numpy === 2", "numpy>2,", "a @ https://host/a.whl"]
)
def test_an_unusual_requirement_is_one(read: Load, text: str) -> None:
    assert read(f"python: {{packages: [{json.dumps(text)}]}}").python.packages == (text,)


def test_a_mapping_is_told_as_the_text_that_it_means(lines: Lines) -> None:
    where = "python.packages"
    assert lines("python: {packages: [{numpy: 2}]}") == [
        f'machine.yaml:3: {where}[0]: must be text: "numpy==2"'
    ]
    assert lines("python: {packages: {numpy: 2, scipy: 1.5}}") == [
        f"machine.yaml:3: {where}: must be a list: [numpy==2, scipy==1.5]"
    ]
    assert lines("python: {packages: [{numpy: {a: b}}]}") == [
        f"machine.yaml:3: {where}[0]: must be text"
    ]
