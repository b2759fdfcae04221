"""What can be a model, and what servers send instead of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from comfy_machine.host.downloads import content_check
from comfy_machine.host.system.failure import Failure
from tests.model_server import safetensors

PAGE = b"<!DOCTYPE html><html><body>Sign in</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def check(tmp_path: Path, label: str, data: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)
    with file.open("rb") as opened:
        content_check.check(label, opened.fileno(), len(data))


def headed(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def short(value: object) -> str:
    """The name of a case; hundreds of kilobytes are none."""
    return value if isinstance(value, str) else "bytes"


def tensors(*offsets: object) -> bytes:
    return json.dumps(
        {f"t{i}": {"dtype": "U8", "shape": [1], "data_offsets": pair}
         for i, pair in enumerate(offsets)}
    ).encode()  # fmt: skip


@pytest.mark.parametrize("label", ["a.safetensors", "loras/b.SFT"])
@pytest.mark.parametrize(
    "data",
    [
        safetensors(1000),
        headed(tensors([4, 8], [0, 4]), b"x" * 8),
        headed(b"{}"),
        headed(b'{"__metadata__": {"format": "pt"}}   '),
        headed(tensors([0, 0])),
        headed(b"{}".ljust(int.from_bytes(b'{"', "little"))),
        headed(b"{}".ljust(int.from_bytes(b"[\n", "little"))),
    ],
    ids=short,
)
def test_a_safetensors_file_is_one(tmp_path: Path, label: str, data: bytes) -> None:
    check(tmp_path, label, data)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (safetensors(1000)[:-1], "tensors end at"),
        (safetensors(1000) + b"x", "tensors end at"),
        (safetensors(1000)[:20], "no header"),
        (b"1234567", "no header"),
        (b"\xff" * 8 + b"x" * 100, "no header"),
        ((200_000_000).to_bytes(8, "little") + b"{}", "no header"),
        (headed(b"not JSON"), "can't be read"),
        (headed(b"\xff\xfe"), "can't be read"),
        (headed(b"[" * 500_000), "can't be read"),
        (headed(b'{"a":' * 200_000), "can't be read"),
        (headed(b"[1, 2]"), "can't be read"),
        (headed(b"null"), "can't be read"),
        (headed(b'{"t": 1}'), "can't be read"),
        (headed(b'{"t": {}}'), "can't be read"),
        (headed(tensors([0])), "can't be read"),
        (headed(tensors("05")), "can't be read"),
        (headed(tensors([0, None])), "can't be read"),
        (headed(b'{"t": {"data_offsets": [0, Infinity]}}'), "can't be read"),
        (headed(b'{"t": {"data_offsets": [0, 1e999]}}'), "can't be read"),
        (headed(b'{"t": {"data_offsets": [0, ' + b"9" * 5000 + b"]}}"), "can't be read"),
        (headed(tensors([0, -4])), "tensors end at"),
        (headed(tensors([0, 2**70])), "tensors end at"),
    ],
    ids=short,
)
def test_what_is_no_safetensors_file_says_what_is_wrong(
    tmp_path: Path, data: bytes, problem: str
) -> None:
    with pytest.raises(Failure, match=rf"a\.safetensors: this is not a safetensors.*{problem}"):
        check(tmp_path, "a.safetensors", data)
    check(tmp_path, "a.ckpt", data)


@pytest.mark.parametrize(
    "page",
    [PAGE, b"\xef\xbb\xbf" + PAGE, b"\r\n\t " + PAGE, PAGE.lower(), b"<html lang=en>", b"<head>",
     b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', b"<!-- moved -->"],
)  # fmt: skip
def test_a_page_is_refused(tmp_path: Path, page: bytes) -> None:
    for label in ("a.ckpt", "a.safetensors", "without-ending"):
        with pytest.raises(Failure, match="sent a web page"):
            check(tmp_path, label, page)
    check(tmp_path, "page.html", page)


@pytest.mark.parametrize("kind", ["text/html", "TEXT/HTML; charset=utf-8"])
def test_a_page_is_refused_by_its_type(kind: str) -> None:
    with pytest.raises(Failure, match="sent a web page"):
        content_check.refuse_page("a.ckpt", b"Sign in, please", kind)
    content_check.refuse_page("a.htm", b"Sign in, please", kind)


@pytest.mark.parametrize("label", ["a.ckpt", "a.safetensors", "a.gguf", "b.PTH"])
def test_json_is_no_model(tmp_path: Path, label: str) -> None:
    for answer in (b'{"error": "no token"}', b'{\n  "error": 1}', b'[{"a": 1}]', b"{}"):
        with pytest.raises(Failure, match="sent JSON"):
            check(tmp_path, label, answer)
    for kind in ("application/json", "application/problem+json; charset=utf-8"):
        with pytest.raises(Failure, match="sent JSON"):
            content_check.refuse_page(label, b"", kind)


def test_json_is_json(tmp_path: Path) -> None:
    check(tmp_path, "config.json", b'{"a": 1}')
    content_check.refuse_page("config.json", b'{"a": 1}', "application/json")
    content_check.refuse_page("a.ckpt", b"\x80\x02", "application/octet-stream")


def test_a_pointer_of_lfs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="git LFS pointer"):
        check(tmp_path, "a.ckpt", POINTER)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="is empty"):
        check(tmp_path, "a.txt", b"")
