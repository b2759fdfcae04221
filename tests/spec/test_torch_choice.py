"""python.torch: every way to say CUDA 12.8, and what to write."""

from __future__ import annotations

import pytest

from tests.spec.conftest import Lines, Load

EXPECTED = "one of auto, cpu, pypi, preinstalled, none, or a backend such as cu128, rocm6.3, xpu"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cu999", "there is no CUDA 99.9: a backend is cu and the version of CUDA without its dot, "
         "such as cu128 for 12.8"),
        ("cu12", "there is no CUDA 1.2: a backend is cu and the version of CUDA without its dot, "
         "such as cu128 for 12.8"),
        ("12.8", "write cu128"),
        ("128", "write cu128"),
        ("'12.8'", "write cu128"),
        ("cu12.8", "write cu128"),
        ("CU128", "write cu128"),
        ("cuda128", "write cu128"),
        ("cuda-12.8", "write cu128"),
        ("+cu128", "write cu128"),
        ("CPU", "write cpu"),
        ("ROCm6.3", "write rocm6.3"),
        ("2.7", "a version of torch goes into python.packages: [torch==2.7]"),
        ("torch==2.7.1", "a version of torch goes into python.packages: [torch==2.7.1]"),
        ("2.7.1+cu128", "a version of torch goes into python.packages: [torch==2.7.1]"),
        ("cuda", "write auto, the build for this machine's driver, or a backend such as cu128"),
        ("nightly", EXPECTED),
        ("rocm", EXPECTED),
        ("cu1", EXPECTED),
    ],
)  # fmt: skip
def test_another_spelling_is_told_with_what_to_write(lines: Lines, text: str, told: str) -> None:
    assert lines(f"python: {{torch: {text}}}") == [f"machine.yaml:3: python.torch: {told}"]


@pytest.mark.parametrize("text", ["cu80", "cu118", "cu132"])
def test_a_backend_of_any_cuda_is_understood(read: Load, text: str) -> None:
    assert read(f"python: {{torch: {text}}}").python.torch == text
