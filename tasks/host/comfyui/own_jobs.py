"""Jobs of our own: the small built-in one, and those that machine.yaml names."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...spec import workflow_file
from ...spec.model import SMOKE
from ...spec.workflow_file import Prompt, can_vary
from ..system.failure import Failure
from . import api

CLIENT = "comfy-machine"
"""The client id of our jobs, which sets them apart from others in a queue."""
MOST = {"color": 0xFFFFFF}
MOST_OF_A_SEED = 2**31 - 1
"""ComfyUI takes 64 bits, numpy 32, and some nodes one less."""


@dataclass(frozen=True)
class Trial:
    """What came of a job of ours: when (since the epoch), seconds, and why it failed."""

    ok: bool
    at: float
    seconds: float
    reason: str


def read(path: Path) -> Prompt:
    """The prompt of a file, or the built-in one. Raises Failure, as it may be gone by now."""
    if path == SMOKE:
        return smoke("PreviewImage")
    try:
        return workflow_file.read(path)
    except ValueError as error:
        raise Failure(f"the workflow {error}") from None


def vary(prompt: Prompt) -> Prompt:
    """The same job with other seeds and colours, or the answer would come from the cache."""

    def another(name: str, value: Any) -> Any:
        most = MOST.get(name, MOST_OF_A_SEED)
        return random.randrange(most + 1) if can_vary(name, value) else value

    return {
        key: node | {"inputs": {name: another(name, v) for name, v in node["inputs"].items()}}
        for key, node in prompt.items()
    }


def run(client: api.Client, prompt: Prompt, timeout: float) -> float:
    """Run a job before all that wait, and return its seconds.

    Raises Failure with ComfyUI's reason, also after `timeout` seconds; the job waits no longer
    then. Raises requests.RequestException when the instance doesn't answer.
    """
    begin = time.monotonic()
    try:
        job = client.submit(prompt, client=CLIENT, front=True)
        while not _done(client, job):
            if time.monotonic() - begin > timeout:
                client.delete(job)
                raise Failure(f"job {job} wasn't done after {round(timeout, 1):g} s")
            time.sleep(api.POLL)
    except Failure as failure:
        raise Failure(reason(client, failure)) from None
    return time.monotonic() - begin


def _done(client: api.Client, job: str) -> bool:
    """One that loads a large model may be silent for a while."""
    import requests

    try:
        return client.done(job) is not None
    except requests.Timeout:
        return False


def reason(client: api.Client, failure: Failure) -> str:
    """What a client raised, without the address, for a sentence that names the instance."""
    return str(failure).removeprefix(client.url).removeprefix(":").strip()


def answered(error: OSError) -> str:
    """What was wrong when an instance gave no answer, or none that is of use."""
    response = getattr(error, "response", None)
    if response is None:
        return f"it stopped answering ({type(error).__name__})"
    return f"it answered {response.status_code} {response.reason}"


def smoke(output: str) -> Prompt:
    """A job of ComfyUI's own nodes that ends in `output`: SaveImage, or PreviewImage, which
    leaves nothing among the outputs."""
    ends = {"filename_prefix": "smoke/smoke"} if output == "SaveImage" else {}
    return vary(
        {
            "1": {
                "class_type": "EmptyImage",
                "inputs": {"width": 512, "height": 512, "batch_size": 1, "color": 0},
            },
            "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
            "3": {
                "class_type": "ImageScale",
                "inputs": {
                    "image": ["2", 0],
                    "upscale_method": "lanczos",
                    "width": 768,
                    "height": 768,
                    "crop": "disabled",
                },
            },
            "4": {"class_type": output, "inputs": {"images": ["3", 0], **ends}},
        }
    )
