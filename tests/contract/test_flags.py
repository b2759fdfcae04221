"""The command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from .client import JOB_TIMEOUT, picture, preview, save, until
from .installation import Installation

KNOWN = [
    *("--listen", "127.0.0.1", "--lowvram", "--preview-method", "auto", "--verbose", "DEBUG"),
    *("--disable-auto-launch", "--fast", "fp16_accumulation", "--disable-metadata"),
    *("--front-end-version", "comfyanonymous/ComfyUI@latest", "--max-upload-size", "10"),
    *("--reserve-vram", "1.5", "--cache-lru", "10", "--enable-cors-header", "*"),
    *("--disable-smart-memory", "--use-pytorch-cross-attention", "--disable-api-nodes"),
]


def test_an_unknown_flag_exits_2(comfyui: Installation) -> None:
    ended = comfyui.run(comfyui.base(), "--no-such-flag")
    assert ended.process.returncode == 2
    assert "unrecognized arguments: --no-such-flag" in ended.log


@pytest.mark.parametrize(
    "flags",
    [
        ("--port", "high"),
        ("--preview-method", "loud"),
        ("--highvram", "--lowvram"),
        ("--cache-none", "--cache-lru", "3"),
        ("--user-directory", "no-such-folder"),
    ],
)
def test_a_wrong_value_exits_2(comfyui: Installation, flags: tuple[str, ...]) -> None:
    base = comfyui.base()
    ended = comfyui.launch(base, *flags)
    assert ended.process.wait(comfyui.start_timeout) == 2, ended.log


def test_common_flags_are_taken(comfyui: Installation) -> None:
    flags = [flag for flag in KNOWN if flag != "--lowvram"]  # it excludes --cpu
    server = comfyui.start(comfyui.base(), *flags)
    argv = server.json("/system_stats")["system"]["argv"]
    assert "--reserve-vram" in argv


def test_directories_are_where_the_flags_say(comfyui: Installation, tmp_path: Path) -> None:
    folders = {name: tmp_path / f"my-{name}" for name in ("output", "input", "temp")}
    for folder in folders.values():
        folder.mkdir()
    flags = [part for name in folders for part in (f"--{name}-directory", str(folders[name]))]
    (folders["input"] / "found.png").touch()
    server = comfyui.start(comfyui.base(), *flags)
    done = server.run({"1": picture(), "2": save("1", "a/b"), "3": preview("1")})
    assert (folders["output"] / "a" / "b_00001_.png").is_file()
    (shown,) = done["outputs"]["3"]["images"]
    assert (folders["temp"] / "temp" / shown["filename"]).is_file()
    images = server.json("/object_info/LoadImage")["LoadImage"]["input"]["required"]["image"]
    assert images == [["found.png"], {"image_upload": True}]
    paths = server.json("/internal/folder_paths")
    assert str(folders["output"] / "checkpoints") in paths["checkpoints"]


def test_the_database_is_where_the_flag_says(comfyui: Installation, tmp_path: Path) -> None:
    database = tmp_path / "mine.db"
    ended = comfyui.load(comfyui.base(), "--database-url", f"sqlite:///{database}")
    assert ended.process.returncode == 0, ended.log
    assert database.is_file()


def test_a_missing_input_directory_lacks_load_image_the_first_time(
    comfyui: Installation, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    server = comfyui.start(comfyui.base(), "--input-directory", str(missing))
    assert "LoadImage" not in server.json("/object_info")
    assert "LoadImage" in server.json("/object_info")


def test_without_metadata_a_saved_image_has_none(comfyui: Installation) -> None:
    base = comfyui.base()
    server = comfyui.start(base, "--disable-metadata")
    server.run({"1": picture(), "2": save("1", "plain")})
    assert b"EmptyImage" not in (base.path / "output" / "plain_00001_.png").read_bytes()


def test_without_cache_an_identical_prompt_is_executed_again(comfyui: Installation) -> None:
    base = comfyui.base()
    server = comfyui.start(base, "--cache-none")
    prompt = {"1": picture(), "2": save("1", "again")}
    server.run(prompt)
    server.run(prompt)
    assert (base.path / "output" / "again_00002_.png").is_file()


def test_freeing_memory_empties_the_cache(comfyui: Installation) -> None:
    base = comfyui.base()
    server = comfyui.start(base)
    prompt = {"1": picture(), "2": save("1", "again")}
    server.run(prompt)
    server.run(prompt)
    assert not (base.path / "output" / "again_00002_.png").exists()
    server.post("/free", json={"free_memory": True})
    # Real ComfyUI frees between jobs: one queued at once may still come from the cache.
    until(
        lambda: server.run(prompt) and (base.path / "output" / "again_00002_.png").exists(),
        JOB_TIMEOUT,
        "the cache to be emptied",
    )
