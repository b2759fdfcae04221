"""The command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from tests.contract.client import JOB_TIMEOUT, picture, preview, save, until
from tests.contract.installation import Installation

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


def test_what_help_names_is_taken_and_all_else_is_refused(comfyui: Installation) -> None:
    base = comfyui.base()
    flags: dict[str, list[str]] = {
        "--disable-ipex-optimize": [],
        "--cache-ram": ["1.5", "2"],
        "--disable-pinned-memory": [],
        "--disable-dynamic-vram": [],
        "--vram-headroom": ["1"],
        "--models-directory": [str(base.path / "models")],
        "--feature-flag": ["show_signin_button=true"],
        "--enable-asset-hashing": [],
        "--disable-assets": [],
        "--no-such-flag": [],
    }
    known = [word for name in flags if name in comfyui.known for word in (name, *flags[name])]
    unknown = [name for name in flags if name not in comfyui.known]
    ended = comfyui.load(base, *known)
    assert ended.process.returncode == 0, ended.log
    ended = comfyui.run(base, *unknown)
    assert ended.process.returncode == 2
    assert f"unrecognized arguments: {' '.join(unknown)}" in ended.log


def test_models_are_where_the_flag_says(comfyui: Installation) -> None:
    if "--models-directory" not in comfyui.known:
        pytest.skip("this ComfyUI has no --models-directory")
    base = comfyui.base()
    model = base.add("elsewhere/checkpoints/one.ckpt", "x")
    server = comfyui.start(base, "--models-directory", str(model.parents[1]))
    assert server.json("/models/checkpoints") == ["one.ckpt"]
    assert server.json("/features")["max_upload_size"] == 100 * 1024 * 1024


def test_with_assets_all_of_object_info_begins_a_scan_and_one_class_none(
    comfyui: Installation,
) -> None:
    if "--enable-assets" not in comfyui.known:
        pytest.skip("this ComfyUI has no --enable-assets")
    base = comfyui.base()
    base.add("models/checkpoints/one.ckpt", "x")
    server = comfyui.start(base, "--enable-assets")
    assert server.json("/features")["assets"] is True
    until(lambda: server.json("/api/assets")["total"], JOB_TIMEOUT, "the scan at the start")
    (found,) = server.json("/api/assets")["assets"]
    assert (found["name"], found["size"]) == ("one.ckpt", 1)
    scans = server.log.count("Seeder start")
    server.json("/object_info/SaveImage")
    assert server.log.count("Seeder start") == scans
    server.json("/object_info")
    until(lambda: server.log.count("Seeder start") == scans + 1, JOB_TIMEOUT, "a scan")


def test_a_server_with_a_certificate_speaks_https(comfyui: Installation, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    flags = ["--tls-keyfile", str(tmp_path / "key.pem")]
    flags += ["--tls-certfile", str(tmp_path / "cert.pem")]
    server = comfyui.launch(comfyui.base(), *flags)
    server.trust(tmp_path / "ca.pem")
    comfyui.wait(server)
    assert server.url.startswith("https://")
    assert server.run({"1": picture(), "2": preview("1")})["status"]["completed"]


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


def test_load_image_is_missing_the_first_time_if_no_input_directory_is_made_at_the_start(
    comfyui: Installation, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    server = comfyui.start(comfyui.base(), "--input-directory", str(missing))
    made = missing.is_dir()
    assert made is ("--enable-assets" in comfyui.known), "both came at a time"
    assert ("LoadImage" in server.json("/object_info")) is made
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
