"""The workflows that machine.yaml names: what is none is said with its line, at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from comfy_machine.spec import workflow_file
from comfy_machine.spec.model import SMOKE
from tests.spec.conftest import Lines, Load

EXPORT = "in ComfyUI, export it with Workflow > Export (API)"


def job(**inputs: Any) -> bytes:
    return json.dumps({"3": {"class_type": "KSampler", "inputs": inputs, "_meta": {}}}).encode()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x89PNG\r\n", f"isn't JSON: {EXPORT}"),
        (b"", f"isn't JSON: {EXPORT}"),
        (b"[" * 100_000, f"isn't JSON: {EXPORT}"),
        (b'{"nodes": [], "links": [], "version": 0.4}',
         f"is a workflow as the page saves it, not in API format: {EXPORT}"),
        (b"{}", f"isn't a workflow in API format: {EXPORT}"),
        (b"[]", f"isn't a workflow in API format: {EXPORT}"),
        (b'{"prompt": {"1": {"class_type": "A", "inputs": {}}}}',
         f"isn't a workflow in API format: {EXPORT}"),
        (b'{"1": {"class_type": "A", "inputs": []}}', f"isn't a workflow in API format: {EXPORT}"),
        (b" " * (workflow_file.MAX_BYTES + 1),
         f"is larger than 20 MB, so it isn't a workflow: {EXPORT}"),
    ],
    ids=["png", "empty", "deep", "ui", "no-nodes", "list", "wrapped", "no-inputs", "large"],
)  # fmt: skip
def test_a_file_that_is_no_workflow_is_said_with_what_to_do(
    folder: Path, lines: Lines, content: bytes, expected: str
) -> None:
    (folder / "job.json").write_bytes(content)
    assert lines("health:\n  warmup: job.json\n") == [
        f"machine.yaml:4: health.warmup: {folder / 'job.json'} {expected}"
    ]


def test_a_file_that_is_not_there_is_missed_in_an_image_build_already(
    folder: Path, lines: Lines
) -> None:
    (folder / "sub").mkdir()
    there = "put the workflow there, in an image as well"
    assert lines("health:\n  canary: sub\n  warmup: sub/job.json\n") == [
        f"machine.yaml:4: health.canary: {folder / 'sub'} isn't a file: {there}",
        f"machine.yaml:5: health.warmup: {folder / 'sub' / 'job.json'} is not there: {there}",
    ]


@pytest.mark.parametrize(
    ("inputs", "varies"),
    [
        ({"seed": 7}, True),
        ({"noise_seed": 0}, True),
        ({"color": 255}, True),
        ({"seed": ["4", 0]}, False),
        ({"seed": True}, False),
        ({"seed": "7"}, False),
        ({"steps": 20}, False),
    ],
)
def test_a_canary_needs_something_that_varies_and_a_warm_up_job_does_not(
    folder: Path, lines: Lines, inputs: dict[str, Any], varies: bool
) -> None:
    (folder / "job.json").write_bytes(job(**inputs))
    assert lines("health: {warmup: job.json}") == []
    found = lines("health: {canary: job.json}")
    expected = [
        f"machine.yaml:3: health.canary: {folder / 'job.json'} has no number as seed, noise_seed "
        "or color: nothing in it can vary, and ComfyUI would answer from its cache"
    ]
    assert found == ([] if varies else expected)


def test_smoke_is_the_built_in_job_and_a_path_is_relative_to_the_machine_file(
    folder: Path, read: Load
) -> None:
    (folder / "job.json").write_bytes(job(seed=1))
    health = read("health: {warmup: smoke, canary: job.json}").health
    assert (health.warmup, health.canary) == (SMOKE, folder / "job.json")


def test_a_path_that_is_none_is_said_once(lines: Lines) -> None:
    assert lines("health: {warmup: '${HOME}/x.json', canary: [a]}") == [
        "machine.yaml:3: health.warmup: ${…} is understood in env values only",
        "machine.yaml:3: health.canary: must be text",
    ]
