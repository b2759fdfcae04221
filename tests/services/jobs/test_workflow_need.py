"""What a workflow needs, by what instances are known to have."""

from __future__ import annotations

from typing import Any

import pytest

from comfy_machine.services.jobs.demand import Instance, Need, Waiting, why_unfit
from comfy_machine.services.jobs.worker_protocol import Inventory
from comfy_machine.services.jobs.workflow_need import need_of

MODELS = {
    "checkpoints/xl/base.safetensors": 7_000,
    "diffusion_models/flux.gguf": 12_000,
    "loras/style.safetensors": 300,
    "vae/ae.safetensors": 160,
    "vae/base.safetensors": 150,
    "checkpoints/base.safetensors": 2_000,
}
HAS = Inventory(classes=("KSampler",), models=tuple(MODELS), sizes=MODELS)


def workflow(**inputs: Any) -> dict[str, Any]:
    return {"1": {"class_type": "KSampler", "inputs": inputs}, "2": {"class_type": "Save"}}


def test_classes_models_memory_and_the_checkpoint() -> None:
    need = need_of(
        workflow(
            ckpt_name="xl/base.safetensors",
            model="flux.gguf",
            lora_name="style.safetensors",
            text="a photo",
            steps=20,
            link=["2", 0],
        ),
        [Inventory(), HAS],
    )
    assert need == Need(
        classes=frozenset(["KSampler", "Save"]),
        models=frozenset(list(MODELS)[:3]),
        memory=19_300,
        checkpoint="diffusion_models/flux.gguf",
    )


@pytest.mark.parametrize(
    ("name", "model"),
    [("vae_name", "vae/base.safetensors"), ("ckpt_name", "checkpoints/base.safetensors")],
)
def test_a_name_in_two_folders_is_told_by_its_input(name: str, model: str) -> None:
    assert need_of(workflow(**{name: "base.safetensors"}), [HAS]).models == {model}


@pytest.mark.parametrize(
    ("inputs", "models"),
    [
        ({"lora_name": "none.safetensors"}, {"loras/none.safetensors"}),
        ({"ckpt_name": "sub/none.CKPT"}, {"checkpoints/sub/none.CKPT"}),
        ({"model_name": "yolov8n.pt"}, set()),
        ({"url": "https://host/none.safetensors"}, set()),
        ({"path": "/data/none.safetensors"}, set()),
        ({"text": "first line\nnone.safetensors"}, set()),
        ({"filename_prefix": "ComfyUI"}, set()),
    ],
)
def test_what_looks_like_a_model_and_is_nowhere(inputs: Any, models: set[str]) -> None:
    assert need_of(workflow(**inputs), [HAS]).models == models


def test_nothing_is_missing_while_no_models_are_known() -> None:
    need = need_of(workflow(lora_name="none.safetensors"), [Inventory(classes=("KSampler",))])
    assert need.models == frozenset()
    job = Waiting("a", need_of(workflow(lora_name="none.safetensors"), [HAS]), 0.0)
    classes, models = frozenset(["KSampler", "Save"]), frozenset(HAS.models or ())
    assert why_unfit(job, [Instance("gpu0", classes=classes, models=models)]) == (
        "no instance has model loras/none.safetensors"
    )


def test_a_workflow_that_is_none_is_no_accident() -> None:
    assert need_of({"1": None, "2": {"class_type": "A", "inputs": [1]}}, [HAS]).classes == {"A"}
