"""machine.yaml's `python`, field by field."""

from __future__ import annotations

from pydantic import Field

from .base import Model
from .fields import IndexUrl, PlaceOfWheels, Prefer, Requirement, Torch


class Python(Model):
    """The Python environment that all instances share."""

    torch: Torch = Field(
        default="auto",
        description="auto (the lock's, else the driver's CUDA, else PyPI's; with cpu_only cpu), "
        "cpu, pypi, preinstalled, none, or a backend such as cu128; rocm6.3, xpu with cpu_only.",
    )
    packages: tuple[Requirement, ...] = Field(
        default=(),
        description="Requirements beyond those of ComfyUI and the nodes, such as boto3; they "
        "are resolved with all others.",
    )
    overrides: tuple[Requirement, ...] = Field(
        default=(),
        description="Requirements that win over every other of their packages, such as numpy<2; "
        "they add none.",
    )
    prefer: Prefer = Field(
        default={},
        description="Which of the packages that overwrite each other: {opencv: opencv-python}. "
        "Families: opencv, onnxruntime, pillow.",
    )
    find_links: tuple[PlaceOfWheels, ...] = Field(
        default=(), description="Folders or pages that hold wheels."
    )
    extra_index_urls: tuple[IndexUrl, ...] = Field(
        default=(),
        description="Package indexes beside PyPI; credentials as https://${USER}:${TOKEN}@host/….",
    )
