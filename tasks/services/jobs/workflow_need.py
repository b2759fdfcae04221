"""What a workflow needs of an instance: its node classes, and the models that its inputs name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ...spec.model_names import MODEL_FILE
from .demand import Need
from .worker_protocol import Inventory

LOADERS = ("checkpoints", "diffusion_models", "unet", "unet_gguf")
"""Folders of the models that take longest to load, so an instance keeps one of them."""
FOLDERS = {
    "ckpt": "checkpoints",
    "unet": "diffusion_models",
    "vae": "vae",
    "lora": "loras",
    "clip": "text_encoders",
    "control_net": "controlnet",
    "controlnet": "controlnet",
    "style_model": "style_models",
    "upscale_model": "upscale_models",
    "hypernetwork": "hypernetworks",
    "gligen": "gligen",
}
"""How the name of an input begins → the folder of the model that it names."""


class ModelIndex:
    """The models that some instance has, by their names."""

    def __init__(self, inventories: Collection[Inventory]) -> None:
        self._sizes: dict[str, int] = {}
        self._folders: dict[str, list[str]] = {}
        for each in inventories:
            self._sizes.update(each.sizes)
        for model in sorted({model for each in inventories for model in each.models or ()}):
            folder, _, name = model.partition("/")
            self._folders.setdefault(name, []).append(folder)

    def need(self, workflow: Mapping[str, Any]) -> Need:
        """What this workflow, in API format, needs.

        A name that is a model's on some instance is taken for it. One that looks like a model's, in
        an input of ComfyUI's own loaders, counts too once the models of some instance are known:
        then it is nowhere.
        """
        nodes = [node for node in workflow.values() if isinstance(node, dict)]
        named = (self._model(name, value) for name, value in _texts(nodes))
        models = frozenset(model for model in named if model)
        return Need(
            classes=frozenset(str(node.get("class_type")) for node in nodes),
            models=models,
            memory=sum(self._sizes.get(model, 0) for model in models),
            checkpoint=max(
                (model for model in models if model.partition("/")[0] in LOADERS),
                key=lambda model: (self._sizes.get(model, 0), model),
                default="",
            ),
        )

    def _model(self, name: str, value: str) -> str:
        """The model that an input names, as folder/name; empty: none."""
        hint = next((folder for start, folder in FOLDERS.items() if name.startswith(start)), "")
        if found := self._folders.get(value):
            return f"{hint if hint in found else found[0]}/{value}"
        # Other inputs may name what their node downloads by itself.
        is_model = hint and "://" not in value and MODEL_FILE.fullmatch(value)
        return f"{hint}/{value}" if self._folders and is_model else ""


def need_of(workflow: Mapping[str, Any], inventories: Collection[Inventory]) -> Need:
    """What this workflow needs, where `inventories` are those of all known instances."""
    return ModelIndex(inventories).need(workflow)


def _texts(nodes: Collection[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for node in nodes:
        inputs = node.get("inputs")
        for name, value in inputs.items() if isinstance(inputs, dict) else ():
            if isinstance(value, str):
                yield str(name), value
