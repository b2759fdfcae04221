"""Assets that a workflow refers to: each reference becomes the name of a file of the inputs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from ..jobs.distant_file import Absent, Silent
from .asset_files import Asset, AssetFiles, suffix
from .job_answers import JobAnswers
from .job_desk import JobDesk
from .job_outputs import JobOutputs, silent
from .output_files import OutputFile
from .refused import Refused

MARK = "core/ASSET"
DEEPEST = 200
"""How deep a workflow may be nested."""


async def output_of(asset: str, desk: JobDesk, answers: JobAnswers) -> OutputFile | None:
    """The output of this id; None: no job has it."""
    job, dot, _ = asset.partition(".")
    if not dot:
        return None
    try:
        stored = await desk.find(job)
    except Refused as refused:
        if refused.status != 404:
            raise
        return None
    return next((each for each in answers.files(stored.record) if each.id == asset), None)


async def resolved(
    workflow: dict[str, Any],
    files: AssetFiles,
    desk: JobDesk,
    answers: JobAnswers,
    outputs: JobOutputs,
) -> dict[str, Any]:
    """The workflow with the names of files. Raises Refused for assets that aren't there."""
    names: dict[str, str] = {}
    missing: list[str] = []
    for reference in _references(workflow):
        asset = await _find(reference, files, desk, answers, outputs)
        if asset is None:
            missing.append(str(reference.get("id", "without id"))[:80])
        else:
            names[_key(reference)] = asset.id
    if missing:
        raise Refused(
            422, "missing_asset", f"there is no asset {', '.join(missing)}",
            {"missing_ids": missing},
        )  # fmt: skip
    found: dict[str, Any] = _replaced(workflow, names)
    return found


async def _find(
    about: dict[str, Any],
    files: AssetFiles,
    desk: JobDesk,
    answers: JobAnswers,
    outputs: JobOutputs,
) -> Asset | None:
    name, digest = about.get("id"), about.get("hash")
    hint = about.get("file_path")
    if isinstance(name, str):
        if (asset := await asyncio.to_thread(files.get, name)) is not None:
            return asset
        output = await output_of(name, desk, answers)
        return await _adopted(output, files, desk, outputs) if output else None
    if isinstance(digest, str):
        ending = suffix(hint) if isinstance(hint, str) else ""
        return await asyncio.to_thread(files.named, digest.removeprefix("blake3:"), ending)
    return None


async def _adopted(
    output: OutputFile, files: AssetFiles, desk: JobDesk, outputs: JobOutputs
) -> Asset | None:
    """An output as an input of another job; None: it is gone. Raises Refused."""
    record = (await desk.find(output.job)).record
    try:
        file = await outputs.find(record, output)
        if isinstance(file, Path):
            return await asyncio.to_thread(files.adopt, file)
        part, digest = await file.keep(files.parts)
    except Absent:
        return None
    except Silent:
        raise silent(record.machine) from None
    except Refused as refused:
        if refused.status != 410:
            raise
        return None
    try:
        asset, _ = await asyncio.to_thread(files.place, part, digest, output.name)
    finally:
        part.unlink(missing_ok=True)
    return asset


def _references(value: Any, depth: int = 0) -> list[dict[str, Any]]:
    """What the references say, wherever they are."""
    if depth > DEEPEST:
        raise Refused(422, "invalid_workflow", "the workflow is nested too deeply")
    if isinstance(value, dict):
        if value.get("__type") == MARK:
            info = value.get("info")
            return [info if isinstance(info, dict) else {}]
        value = [*value.values()]
    if not isinstance(value, list):
        return []
    return [each for inner in value for each in _references(inner, depth + 1)]


def _replaced(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        if value.get("__type") == MARK:
            return names[_key(value["info"])]
        return {key: _replaced(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, names) for inner in value]
    return value


def _key(about: dict[str, Any]) -> str:
    return f"{about.get('id')}\n{about.get('hash')}\n{about.get('file_path')}"
