from __future__ import annotations

import pytest

from comfy_machine.host.system.units import duration, gib, size


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_499, "999 kB"), (999_500, "1.0 MB"),
     (1_500_000, "1.5 MB"), (999_960_000, "1.0 GB"), (545_400_000, "545.4 MB"),
     (12_345_678_901, "12.3 GB"), (7e12, "7.00 TB")],
)  # fmt: skip
def test_sizes_have_the_largest_unit_that_fits(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0s"), (59.9, "59s"), (65, "1m 5s"), (3600, "1h 0m"), (93_784, "1d 2h")],
)
def test_durations_are_told_in_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_memory_is_in_the_units_of_nvidia_smi() -> None:
    assert gib(85_520_809_984) == "79.6 GiB"
