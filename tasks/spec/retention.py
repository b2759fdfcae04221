"""What machine.yaml says of former days."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Model

Generations = Annotated[int, Field(strict=True, ge=1)]


class Retention(Model):
    """How much of former days is kept."""

    generations: Generations = Field(
        default=3,
        description="How many good generations are kept with their environments and sources, the "
        "one that runs included; fewer when their volume runs low.",
    )
