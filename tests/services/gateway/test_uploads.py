"""Uploads: whatever a client sends, a file is there whole or not at all."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

from blake3 import blake3

from tests.services.gateway.conftest import Gateway

ASSETS = "/api/v2/assets"


def inputs(gateway: Gateway) -> list[str]:
    """All files, also those on their way."""
    folder = gateway.workspace / "shared" / "inputs"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def upload(gateway: Gateway, content: bytes, **fields: str) -> Any:
    files = {"file": ("x", content, "image/png")}
    return gateway.ask("POST", ASSETS, files=files, data={"file_path": "x.png", **fields})


def test_a_file_is_known_by_its_bytes(gateway: Gateway) -> None:
    digest = blake3(b"1").hexdigest()
    assert gateway.ask("HEAD", f"{ASSETS}/by-hash/blake3:{digest}").status_code == 404
    missing = gateway.ask("POST", f"{ASSETS}/from-hash", json={"hash": f"blake3:{digest}"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "blob_not_found")
    first = upload(gateway, b"1", expected_hash=f"blake3:{digest}")
    assert (first.status_code, first.json()["created_new"]) == (201, True)
    again = upload(gateway, b"1")
    assert (again.status_code, again.json()["created_new"]) == (200, False)
    assert again.json()["id"] == first.json()["id"] == f"{digest}.png"
    assert gateway.ask("HEAD", f"{ASSETS}/by-hash/blake3:{digest}").status_code == 200
    minted = gateway.ask("POST", f"{ASSETS}/from-hash", json={"hash": f"blake3:{digest}"})
    assert minted.json()["id"] == f"{digest}.png"
    about = gateway.ask("GET", f"{ASSETS}/{digest}.png").json()
    assert (about["size_bytes"], about["content_type"]) == (1, "image/png")
    assert inputs(gateway) == [f"{digest}.png", "x.png"], "workflows may name it by either"
    assert gateway.ask("DELETE", f"{ASSETS}/{digest}.png").status_code == 204
    assert inputs(gateway) == []
    assert gateway.ask("DELETE", f"{ASSETS}/{digest}.png").status_code == 404


def test_what_is_refused_leaves_nothing(gateway: Gateway) -> None:
    cases: list[tuple[dict[str, str], int, str]] = [
        ({"expected_hash": "blake3:00"}, 409, "hash_mismatch"),
        ({"file_path": ""}, 422, "invalid_request"),
        ({"file_path": "../x.png"}, 422, "invalid_request"),
        ({"file_path": "models/loras/x.safetensors"}, 422, "invalid_request"),
        ({"long": "x" * 100_000}, 422, "invalid_request"),
        ({str(n): "" for n in range(101)}, 422, "invalid_request"),
    ]
    for fields, status, code in cases:
        answer = upload(gateway, b"1", **fields)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert inputs(gateway) == []


def test_a_body_that_is_no_form(gateway: Gateway) -> None:
    for body in [
        b"",
        b"--b\r\n",
        b"no boundary at all",
        b'--b\r\nContent-Disposition: form-data; name="file_path"\r\n\r\na\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf of it',
        b'--b\r\nContent-Disposition: form-data; name="file_path"\r\n\r\na\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n1\r\n--b\r\n',
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n1\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n2\r\n--b--\r\n',
        b"--b\r\nno header\r\n\r\n1\r\n--b--\r\n",
        b"--b\r\n\r\n1\r\n--b--\r\n",
    ]:
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        answer = gateway.ask("POST", ASSETS, data=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
        assert inputs(gateway) == []
        plain = gateway.ask("POST", ASSETS, data=body, headers={"Content-Type": "text/plain"})
        assert plain.status_code == 422


def test_a_client_that_leaves_leaves_nothing(gateway: Gateway) -> None:
    head = (
        f"POST {ASSETS} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.sendall(head.encode() + b"1" * 1000)
        until = time.monotonic() + 5
        while not inputs(gateway) and time.monotonic() < until:
            time.sleep(0.02)
        assert inputs(gateway)
    while inputs(gateway) and time.monotonic() < until:
        time.sleep(0.02)
    assert inputs(gateway) == []


def test_what_a_browser_could_run_is_saved_instead(gateway: Gateway) -> None:
    for name, kind in [("x.svg", "attachment"), ("x.html", "attachment"), ("x.png", "inline")]:
        made = upload(gateway, name.encode(), file_path=name).json()
        content = gateway.session.get(made["url"], timeout=10)
        assert content.headers["Content-Disposition"].startswith(kind)
        assert content.headers["X-Content-Type-Options"] == "nosniff"


def test_an_asset_is_no_link_to_elsewhere(gateway: Gateway, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    folder = gateway.workspace / "shared" / "inputs"
    folder.mkdir(parents=True)
    (folder / ("0" * 64)).symlink_to(secret)
    assert gateway.ask("GET", f"{ASSETS}/{'0' * 64}/content").status_code == 404


def test_a_disk_that_takes_nothing_is_said(gateway: Gateway) -> None:
    folder = gateway.workspace / "shared"
    folder.mkdir(parents=True)
    (folder / "inputs").write_text("no folder")
    answer = upload(gateway, b"1")
    assert (answer.status_code, answer.json()["error"]["code"]) == (507, "insufficient_storage")
