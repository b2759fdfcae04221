"""Whether a file can be a model, and not what servers send instead."""

from __future__ import annotations

import json
import operator
import os
from pathlib import PurePosixPath

from ..system.failure import Failure
from ..system.program_files import PROGRAM

SAFETENSORS = frozenset({".safetensors", ".sft"})
LONGEST_HEADER = 100_000_000
"""Bytes; safetensors' own limit (MAX_HEADER_SIZE in its tensor.rs)."""
_TEXT = frozenset({".html", ".htm", ".xml", ".svg"})
_BINARY = SAFETENSORS | {".bin", ".ckpt", ".gguf", ".onnx", ".pkl", ".pt", ".pt2", ".pth"}
"""Endings of formats that never begin like JSON."""
_CONTROL = frozenset(range(32)) - frozenset(b"\t\r\n")
_PAGE = (b"<!doctype html", b"<html", b"<head", b"<?xml", b"<!--")
_POINTER = b"version https://git-lfs.github.com/spec/"


def refuse_page(label: str, start: bytes, kind: str | None) -> None:
    """Raise Failure if a body that begins with `start` is a page or a pointer, not a model.

    `kind` is its Content-Type.
    """
    ending = PurePosixPath(label).suffix.lower()
    if ending in _TEXT:
        return
    beginning = start[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if beginning.startswith(_PAGE) or (kind or "").lower().startswith("text/html"):
        raise Failure(
            f"{label}: the server sent a web page, not the file: open the url in a browser; "
            "it may want a token, or be the page about the file"
        )
    says_json = (kind or "").lower().split(";")[0].endswith("json")
    if ending in _BINARY and (says_json or _looks_like_json(beginning)):
        raise Failure(
            f"{label}: the server sent JSON, not the file: open the url in a browser; "
            "it may want a token"
        )
    if beginning.startswith(_POINTER):
        raise Failure(f"{label}: this is a git LFS pointer, not the file: use the download link")


def _looks_like_json(beginning: bytes) -> bool:
    """Checks for text too: a safetensors header length may begin with the same byte by chance."""
    return beginning.startswith((b"{", b"[")) and not set(beginning) & _CONTROL


def check(label: str, descriptor: int, size: int, prefix: int | None = None) -> None:
    """Raise Failure if a file's content doesn't fit its ending, as far as that can be checked.

    `prefix`: the number of bytes of an unfinished download.
    """
    if size == 0:
        raise Failure(f"{label}: the file is empty: correct the url")
    refuse_page(label, os.pread(descriptor, 512, 0), None)
    if PurePosixPath(label).suffix.lower() not in SAFETENSORS:
        return
    length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
    if prefix is not None and prefix < min(size, 8 + length):
        # The header isn't complete; only its length is known.
        problem = None if length <= min(LONGEST_HEADER, size - 8) else "it has no header"
    else:
        problem = _safetensors(descriptor, size)
    if problem:
        raise Failure(f"{label}: this is not a safetensors file ({problem}): correct the url")


def mismatch(found: str, expected: str, label: str) -> str:
    """The message for a sha256 that differs from the expected one."""
    return (
        f"its sha256 is {found}, {expected} was expected: correct sha256 in machine.yaml, or "
        f"{PROGRAM} update {label} where machine.lock has it"
    )


def _safetensors(descriptor: int, size: int) -> str | None:
    """What is wrong: eight bytes of length, a JSON header, and data for exactly its tensors."""
    start = os.pread(descriptor, 8, 0)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(LONGEST_HEADER, size - 8):
        return "it has no header"
    try:
        header = json.loads(os.pread(descriptor, length, 8))
        tensors = [value for name, value in header.items() if name != "__metadata__"]
        end = max([operator.index(tensor["data_offsets"][1]) for tensor in tensors], default=0)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return "its header can't be read"
    if 8 + length + end != size:
        return f"its tensors end at byte {8 + length + end}, the file at {size}"
    return None
