"""Scenes: a health server, and the instances that it looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.scene import Scene

SceneMaker = Callable[..., Scene]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[SceneMaker]:
    """Makes scenes, and ends them."""
    made: list[Scene] = []

    def make(**options: Any) -> Scene:
        folder = tmp_path / f"scene{len(made)}"
        folder.mkdir()
        made.append(Scene(folder, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()
