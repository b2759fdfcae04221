"""Jobs of our own: the small built-in one, and those that machine.yaml names."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..system.failure import Failure
from . import api

if TYPE_CHECKING:
    from ...spec.workflow_file import Prompt

CLIENT = "comfy-machine"
"""The client id of our jobs, which tells them apart in a queue."""
MOST = {"color": 0xFFFFFF}
MOST_OF_A_SEED = 2**31 - 1
"""ComfyUI accepts 64 bits, numpy 32, and some nodes 31."""


@dataclass(frozen=True)
class Trial:
    """The outcome of a job of ours: when (since the epoch), duration in seconds, why it failed."""

    ok: bool
    at: float
    seconds: float
    reason: str
    refused: bool = False
    """ComfyUI didn't take it: what the workflow needs isn't there."""


def read_workflow(path: Path) -> Prompt:
    """The prompt of a file, or the built-in one. Raises Failure: the file may be gone."""
    from ...spec import workflow_file
    from ...spec.model import SMOKE

    if path == SMOKE:
        return smoke("PreviewImage")
    try:
        return workflow_file.read(path)
    except ValueError as error:
        raise Failure(f"the workflow {error}") from None


def vary(prompt: Prompt) -> Prompt:
    """The same job with new seeds and colours, so that ComfyUI doesn't answer from its cache."""
    # Here, since the watcher loads this module, and no pydantic.
    from ...spec.workflow_file import can_vary

    def another(name: str, value: Any) -> Any:
        most = MOST.get(name, MOST_OF_A_SEED)
        return random.randrange(most + 1) if can_vary(name, value) else value

    return {
        key: node | {"inputs": {name: another(name, v) for name, v in node["inputs"].items()}}
        for key, node in prompt.items()
    }


def run(client: api.Client, prompt: Prompt, timeout: float) -> float:
    """Run a job ahead of all waiting ones, and return its duration in seconds.

    Raises Failure with ComfyUI's reason, or after `timeout` seconds, and then takes the job out of
    the queue. Raises OSError when the instance doesn't answer.
    """
    begin = time.monotonic()
    try:
        job = client.submit(prompt, client=CLIENT, front=True)
        while not _done(client, job):
            if time.monotonic() - begin > timeout:
                client.delete(job)
                raise Failure(f"job {job} didn't finish within {round(timeout, 1):g} s")
            time.sleep(api.POLL)
    except Failure as failure:
        raise Failure(without_address(client, failure)) from None
    return time.monotonic() - begin


def _done(client: api.Client, job: str) -> bool:
    """An instance that loads a large model may not answer for a while."""
    try:
        return client.done(job) is not None
    except TimeoutError:
        return False


def without_address(client: api.Client, failure: Failure) -> str:
    """A client's failure without the address, for a sentence that names the instance."""
    return str(failure).removeprefix(client.url).removeprefix(":").strip()


def describe_error(error: OSError) -> str:
    """What went wrong when an instance gave no answer, or one that isn't ComfyUI's."""
    if isinstance(error, api.BadAnswer):
        return str(error)
    return f"it doesn't answer ({type(error).__name__})"


def smoke(output: str) -> Prompt:
    """A job of ComfyUI's own nodes that ends in `output`: SaveImage, or PreviewImage, which saves
    nothing in the outputs folder."""
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
