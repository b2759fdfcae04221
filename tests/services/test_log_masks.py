"""Secrets in the logs of apps: overwritten in place, while the app writes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from comfy_machine.host.system import files
from comfy_machine.services import log_masks
from comfy_machine.services.log_masks import LogMasks
from comfy_machine.spec.layout import Layout

SECRET = "hf_abcdefghij"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "ws")
    layout.logs.mkdir(parents=True)
    add(layout, "fetch-gpu0-abc", SECRET)
    return layout


@pytest.fixture
def log(layout: Layout) -> Path:
    return layout.log("comfyui-gpu0")


def add(layout: Layout, name: str, secret: str) -> None:
    files.write_text(layout.secrets / f"{name}.json", json.dumps({"TOKEN": secret}), mode=0o600)


def test_a_secret_becomes_as_many_asterisks_and_the_rest_stays(layout: Layout, log: Path) -> None:
    log.write_text(f"login with {SECRET}\nand {SECRET}{SECRET}.\n")
    LogMasks(layout).step()
    stars = "*" * len(SECRET)
    assert log.read_text() == f"login with {stars}\nand {stars}{stars}.\n"


def test_what_an_app_writes_later_is_masked_later_although_it_comes_in_parts(
    layout: Layout, log: Path
) -> None:
    masks = LogMasks(layout)
    with log.open("a") as app:
        for part in ("one ", SECRET[:5], SECRET[5:], " two"):
            app.write(part)
            app.flush()
            masks.step()
    assert log.read_text() == f"one {'*' * len(SECRET)} two"


def test_a_secret_across_two_blocks_is_found(
    layout: Layout, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_masks, "BLOCK", 8)
    for before in range(20):
        log.write_text("x" * before + SECRET + "y" * 20)
        LogMasks(layout).step()
        assert log.read_text() == "x" * before + "*" * len(SECRET) + "y" * 20


def test_every_line_of_a_key_is_masked(layout: Layout, log: Path) -> None:
    add(layout, "fetch-gpu0-key", "-----BEGIN KEY-----\nMIIEow\nqLwQ8y\n-----END KEY-----\n")
    log.write_text("got MIIEow\n and qLwQ8y\n")
    LogMasks(layout).step()
    assert log.read_text() == "got ******\n and ******\n"


def test_a_secret_that_is_new_is_masked_in_what_was_written_before(
    layout: Layout, log: Path
) -> None:
    masks = LogMasks(layout)
    log.write_text("token: new-secret\n")
    masks.step()
    add(layout, "fetch-gpu1-abc", "new-secret")
    masks.step()
    assert log.read_text() == "token: **********\n"


def test_the_end_of_a_log_that_was_rotated_meanwhile_is_masked(layout: Layout, log: Path) -> None:
    masks = LogMasks(layout)
    log.write_text("beginning\n")
    masks.step()
    with log.open("a") as app:
        log.replace(f"{log}.1")
        app.write(SECRET)
    log.write_text(SECRET)
    masks.step()
    assert Path(f"{log}.1").read_text() == "beginning\n" + "*" * len(SECRET)
    assert log.read_text() == "*" * len(SECRET)


def test_logs_are_for_their_owner_and_other_files_are_left_alone(layout: Layout, log: Path) -> None:
    others = [layout.log("validation"), layout.logs / "notes.txt"]
    for path in (log, *others):
        path.write_text(SECRET)
        path.chmod(0o644)
    log.with_name("fetch-gpu1.log").symlink_to(others[1])
    LogMasks(layout).step()
    assert log.stat().st_mode & 0o777 == 0o600
    for path in others:
        assert path.read_text() == SECRET
        assert path.stat().st_mode & 0o777 == 0o644
