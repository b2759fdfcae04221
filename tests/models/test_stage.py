"""Models that are downloads: fetched once, held to what they were, mended, never half there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfy_machine.host.system import files, run_journal
from tests.conftest import MachineMaker
from tests.model_server import ModelServer, Ways, model_server, noise, until
from tests.rig import PROJECT, Rig

A = noise(300_000, 1)
B = noise(200_000, 2)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as server:
        server.content |= {"/a": A, "/b": B}
        yield server


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def entry(server: ModelServer, target: str, path: str, **more: Any) -> dict[str, Any]:
    return {"target": target, "url": f"{server.url}{path}", **more}


def place(rig: Rig, target: str) -> Path:
    return rig.workspace / "shared/models" / target


def store(rig: Rig) -> Path:
    return rig.workspace / "shared/models/.store"


def contents(folder: Path) -> list[bytes]:
    """Of the verified files of a store."""
    return [path.read_bytes() for path in sorted(folder.iterdir()) if len(path.name) == 64]


def locked(rig: Rig) -> dict[str, Any]:
    models: dict[str, Any] = json.loads(rig.lock_file.read_text())["models"]
    return models


@pytest.fixture
def two(machine: MachineMaker, server: ModelServer) -> Rig:
    """A machine with two downloads, nothing fetched yet."""
    models = [entry(server, "checkpoints/a.ckpt", "/a"), entry(server, "loras/b.pt", "/b")]
    return machine(models={"files": models})


def test_a_download_is_linked_recorded_and_never_asked_for_again(
    two: Rig, server: ModelServer
) -> None:
    two.doit("models")
    assert place(two, "checkpoints/a.ckpt").read_bytes() == A
    assert files.link_target(place(two, "loras/b.pt")) == f"../.store/{sha256(B)}"
    assert locked(two)["loras/b.pt"]["sha256"] == sha256(B)
    assert locked(two)["loras/b.pt"]["size"] == len(B)
    asked = server.requests
    assert two.doit("models").executed == set()
    assert server.requests == asked


def test_the_same_content_from_two_addresses_costs_one_file(
    machine: MachineMaker, server: ModelServer
) -> None:
    server.content["/again"] = A
    models = [
        entry(server, "checkpoints/a.ckpt", "/a"),
        entry(server, "loras/a.ckpt", "/a"),
        entry(server, "vae/again.ckpt", "/again"),
    ]
    rig = machine(models={"files": models})
    rig.doit("models")
    assert contents(store(rig)) == [A]
    assert {place(rig, each["target"]).read_bytes() for each in models} == {A}
    assert server.bytes <= 2 * len(A)


def test_what_was_seen_first_is_held_to_until_an_update(
    two: Rig, server: ModelServer, machine: MachineMaker
) -> None:
    two.doit("models")
    server.content["/a"] = B[::-1]
    fresh = machine("fresh", models=two.spec["models"])
    fresh.lock_file.write_text(two.lock_file.read_text())
    run = fresh.doit("models", code=1)
    assert "doit update checkpoints/a.ckpt" in run.output
    assert not place(fresh, "checkpoints/a.ckpt").exists()
    assert place(fresh, "loras/b.pt").read_bytes() == B
    assert "checkpoints/a.ckpt" in fresh.doit("update", "checkpoints/a.ckpt").output
    fresh.doit("models")
    assert place(fresh, "checkpoints/a.ckpt").read_bytes() == B[::-1]
    assert locked(fresh)["checkpoints/a.ckpt"]["sha256"] == sha256(B[::-1])
    assert locked(fresh)["loras/b.pt"]["sha256"] == sha256(B)


def test_the_same_length_with_another_content_is_refused_by_its_sha256(
    machine: MachineMaker, server: ModelServer
) -> None:
    server.content["/a"] = A[::-1]
    rig = machine(models={"files": [entry(server, "loras/a.pt", "/a", sha256=sha256(A))]})
    run = rig.doit("models", code=1)
    assert f"its sha256 is {sha256(A[::-1])}, {sha256(A)} was expected" in run.output
    assert contents(store(rig)) == []
    assert not os.path.lexists(place(rig, "loras/a.pt"))


def test_what_the_network_garbled_comes_with_the_next_run(
    machine: MachineMaker, server: ModelServer
) -> None:
    server.ways["/a"] = Ways(later=B, later_from=2, unnoticed=True)
    rig = machine(models={"files": [entry(server, "loras/a.pt", "/a", sha256=sha256(B))]})
    rig.doit("models", code=1)
    rig.doit("models")
    assert place(rig, "loras/a.pt").read_bytes() == B


def test_what_was_another_content_twice_is_not_fetched_again(
    machine: MachineMaker, server: ModelServer
) -> None:
    rig = machine(models={"files": [entry(server, "loras/a.pt", "/a", sha256=sha256(B))]})
    rig.doit("models", code=1)
    rig.doit("models", code=1)
    served = server.bytes
    run = rig.doit("models", code=1)
    assert f"its sha256 is {sha256(A)}, {sha256(B)} was expected" in run.output
    assert server.bytes <= served + 1
    server.content["/a"] = B
    rig.doit("models")
    assert place(rig, "loras/a.pt").read_bytes() == B


def test_no_safetensors_file_is_known_by_its_beginning(
    machine: MachineMaker, server: ModelServer
) -> None:
    server.content["/a"] = noise(40_000_000, 5)
    rig = machine(models={"files": [entry(server, "loras/a.safetensors", "/a")]})
    assert "this is not a safetensors file" in rig.doit("models", code=1).output
    assert server.bytes < 20_000_000


def test_targets_may_be_as_long_as_names_can_be(machine: MachineMaker, server: ModelServer) -> None:
    target = f"loras/mit leer [x] ü {{y}} {'n' * 220}.bin"
    rig = machine(models={"files": [entry(server, target, "/a")]})
    rig.doit("models")
    assert place(rig, target).read_bytes() == A
    rig.spec["models"]["files"][0]["target"] = f"loras/{'n' * 256}"
    assert "more than 255 bytes" in rig.doit("models", code=3).output


def test_obstacles_are_named_with_what_to_do(two: Rig, server: ModelServer) -> None:
    two.doit("directories")
    store(two).write_text("in the way")
    assert "move what is there away, or correct models.store" in two.doit("models", code=1).output
    store(two).unlink()
    place(two, "loras").write_text("in the way")
    run = two.doit("models", code=1)
    assert "loras/b.pt: a folder in its path is a file: move it away" in run.output
    place(two, "loras").unlink()
    two.doit("models")
    store(two).rename(two.folder / "away")
    assert "is empty, and should have 2 models" in two.doit("models").output


def test_a_plan_names_what_can_not_be_had_and_all_the_rest(two: Rig, server: ModelServer) -> None:
    two.doit("directories")
    del server.content["/a"]
    planned = two.doit("plan", "models")
    assert "checkpoints/a.ckpt: 127.0.0.1" in planned.output
    assert "answers 404" in planned.output
    assert "download loras/b.pt" in planned.output


def test_with_locked_nothing_is_seen_for_the_first_time(two: Rig, server: ModelServer) -> None:
    run = two.doit("models", "locked=1", code=1)
    assert "machine.lock doesn't have checkpoints/a.ckpt, loras/b.pt" in run.output
    assert server.requests == 0
    two.doit("models")
    two.spec["models"]["files"].append(entry(server, "vae/a.pt", "/a", sha256=sha256(A)))
    before = two.lock_file.read_text()
    two.doit("models", "locked=1")
    assert two.lock_file.read_text() == before


@pytest.mark.parametrize("also", ["machine.lock", "receipts"])
def test_a_lost_lock_costs_no_download(two: Rig, server: ModelServer, also: str) -> None:
    two.doit("models")
    before, served = two.lock_file.read_text(), server.bytes
    two.lock_file.unlink()
    if also == "receipts":
        (two.layout.receipts / "models.json").unlink()
    two.doit("models")
    assert two.lock_file.read_text() == before
    assert server.bytes <= served + 2  # whether the files are still the same is asked by a byte


def test_a_file_that_is_there_already_moves_into_the_store_when_it_fits(
    two: Rig, server: ModelServer
) -> None:
    first, second = (place(two, name) for name in ("checkpoints/a.ckpt", "loras/b.pt"))
    for at, content in ((first, A), (second, A[: len(B)])):
        at.parent.mkdir(parents=True)
        at.write_bytes(content)
    two.spec["models"]["files"][0]["sha256"] = sha256(A)
    two.spec["models"]["files"][1]["sha256"] = sha256(B)
    run = two.doit("models", code=1)
    assert f"{first} was there already: moved it into the store" in run.output
    assert f"{second} is in the way of a link, and isn't loras/b.pt by sha256" in run.output
    assert first.is_symlink()
    assert first.read_bytes() == A
    assert second.read_bytes() == A[: len(B)]
    assert server.requests == 0


def test_a_file_in_the_way_that_nothing_is_known_of_is_left_alone(
    two: Rig, server: ModelServer
) -> None:
    at = place(two, "checkpoints/a.ckpt")
    at.parent.mkdir(parents=True)
    at.write_bytes(b"precious")
    run = two.doit("models", code=1)
    assert "its content can't be checked" in run.output
    assert f"add sha256: {sha256(b'precious')}" in run.output
    assert at.read_bytes() == b"precious"


def test_hugging_faces_own_sha256_lets_a_file_be_adopted(two: Rig, server: ModelServer) -> None:
    at = place(two, "checkpoints/a.ckpt")
    at.parent.mkdir(parents=True)
    at.write_bytes(A)
    server.ways["/a"] = Ways(headers={"X-Linked-Etag": f'"{sha256(A)}"'})
    two.doit("models")
    assert at.is_symlink()
    assert locked(two)["checkpoints/a.ckpt"]["sha256"] == sha256(A)


def truncated(file: Path) -> None:
    os.truncate(file, 10)


def touched(file: Path) -> None:
    os.utime(file, (1, 1))


def replaced(file: Path) -> None:
    file.unlink()
    file.write_bytes(B[::-1])


@pytest.mark.parametrize("happens", [truncated, touched, replaced, Path.unlink])
def test_drift_is_found_by_the_next_run_and_only_then_read_again(
    two: Rig, server: ModelServer, happens: Any
) -> None:
    two.doit("models")
    asked = server.requests
    happens(store(two) / sha256(A))
    assert [state.ok for state in two.models().values()] == [False, True]
    run = two.doit("models")
    assert run.executed == {"models"}
    assert all(state.ok and state.verified for state in two.models().values())
    assert place(two, "checkpoints/a.ckpt").read_bytes() == A
    assert server.requests == asked + (0 if happens is touched else 1)
    assert server.counts["/b"].requests == 1
    assert two.doit("models").executed == set()


def test_a_link_that_was_re_pointed_by_hand_is_put_right(two: Rig, server: ModelServer) -> None:
    two.doit("models")
    link, asked = place(two, "checkpoints/a.ckpt"), server.requests
    link.unlink()
    link.symlink_to("/nowhere")
    two.doit("models")
    assert link.read_bytes() == A
    assert server.requests == asked


def test_what_fails_is_named_line_by_line_and_the_rest_is_there(
    two: Rig, server: ModelServer
) -> None:
    server.ways["/page"] = Ways(kind="text/html")
    server.content["/page"] = b"<!DOCTYPE html><title>Log in</title>"
    two.spec["models"]["files"] += [
        entry(server, "vae/none.pt", "/none"),
        entry(server, "vae/page.safetensors", "/page"),
    ]
    run = two.doit("models", code=1)
    assert "2 models failed:" in run.output
    assert "vae/none.pt: 127.0.0.1" in run.output
    assert "answers 404 Not Found: correct the url" in run.output
    assert "vae/page.safetensors: the server sent a web page, not the file" in run.output
    assert place(two, "loras/b.pt").read_bytes() == B
    assert set(locked(two)) == {"checkpoints/a.ckpt", "loras/b.pt"}
    assert not place(two, "vae/page.safetensors").exists()


def test_an_optional_model_is_a_warning_and_tried_again_by_every_run(
    two: Rig, server: ModelServer
) -> None:
    two.spec["models"]["files"].append(entry(server, "vae/c.pt", "/c", optional=True))
    run = two.doit("models")
    assert "! model vae/c.pt (optional) is missing" in run.output
    server.content["/c"] = B
    assert two.doit("models").executed == {"models"}
    assert place(two, "vae/c.pt").read_bytes() == B
    assert two.doit("models").executed == set()


def test_a_plan_says_how_much_is_to_be_downloaded_and_changes_nothing(
    two: Rig, server: ModelServer
) -> None:
    two.doit("directories")
    planned = two.doit("plan", "models")
    assert "download checkpoints/a.ckpt from 127.0.0.1" in planned.output
    assert ": 300 kB" in planned.output
    assert "500 kB to download in all" in planned.output
    assert server.bytes <= 2
    assert not store(two).exists()
    assert not two.lock_file.exists()


def test_what_left_machine_yaml_loses_its_link_and_keeps_its_content(
    two: Rig, server: ModelServer
) -> None:
    two.doit("models")
    gone = two.spec["models"]["files"].pop()
    assert two.doit("models").executed == {"models"}
    assert not os.path.lexists(place(two, gone["target"]))
    assert B in contents(store(two))
    assert set(locked(two)) == {"checkpoints/a.ckpt"}
    two.spec["models"]["files"].append(gone)
    two.doit("models")
    assert place(two, gone["target"]).read_bytes() == B
    assert server.counts["/b"].bytes <= len(B) + 1


def test_a_download_may_become_a_source_and_back(
    two: Rig, server: ModelServer, tmp_path: Path
) -> None:
    two.doit("links:files")
    (tmp_path / "here.pt").write_bytes(b"here")
    download = two.spec["models"]["files"][1]
    source = {"target": download["target"], "source": str(tmp_path / "here.pt")}
    two.spec["models"]["files"][1] = source
    two.doit("links:files")
    assert place(two, "loras/b.pt").read_bytes() == b"here"
    two.spec["models"]["files"][1] = download
    two.doit("links:files")
    assert place(two, "loras/b.pt").read_bytes() == B
    assert two.doit("links:files").executed == set()


def test_the_environment_moves_the_folder_and_its_store(two: Rig, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    two.doit("models", COMFYUI_MODELS_PATH=str(elsewhere))
    assert (elsewhere / "checkpoints/a.ckpt").read_bytes() == A
    assert contents(elsewhere / ".store")
    assert not store(two).exists()
    assert two.doit("models", COMFYUI_MODELS_PATH=str(elsewhere)).executed == set()


def test_machines_that_share_a_store_fetch_once(
    machine: MachineMaker, server: ModelServer, tmp_path: Path
) -> None:
    content = noise(30_000_000, 3)
    server.content["/big"] = content
    server.ways["/big"] = Ways(pause=0.005)
    models = {"store": str(tmp_path / "store"), "files": [entry(server, "loras/a.pt", "/big")]}
    rigs = [machine(name, models=models) for name in ("one", "other")]
    for rig in rigs:
        rig.doit("directories")
    both = [start(rig, "models") for rig in rigs]
    assert [run.wait(60) for run in both] == [0, 0]
    assert server.counts["/big"].bytes <= len(content) + 1
    for rig in rigs:
        assert place(rig, "loras/a.pt").resolve() == tmp_path / "store" / sha256(content)


def test_a_store_that_takes_no_notes_serves_what_is_right_in_it(
    machine: MachineMaker, server: ModelServer
) -> None:
    rig = machine(models={"files": [entry(server, "loras/a.pt", "/a", sha256=sha256(A))]})
    store(rig).mkdir(parents=True)
    (store(rig) / sha256(A)).write_bytes(A)
    # Nothing can take the place of a folder, as little as on a read-only volume.
    (store(rig) / f"{sha256(A)}.json").mkdir()
    rig.doit("models")
    assert place(rig, "loras/a.pt").read_bytes() == A
    assert server.requests == 0
    assert rig.doit("models").executed == set()


def test_verify_finds_what_no_size_or_time_shows_and_mends_it_when_asked(
    two: Rig, server: ModelServer
) -> None:
    two.doit("models")
    assert "2 of 2 files are intact" in two.doit("verify").output
    file = store(two) / sha256(A)
    before = file.stat()
    file.chmod(0o644)
    with file.open("r+b") as opened:
        opened.write(b"rotten")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert two.doit("models").executed == set()
    run = two.doit("verify", code=1)
    assert "✗ checkpoints/a.ckpt: its content changed" in run.output
    assert "1 of 2 files are intact" in run.output
    two.doit("verify", "--fetch")
    assert place(two, "checkpoints/a.ckpt").read_bytes() == A
    assert "2 of 2 files are intact" in two.doit("verify").output


def test_what_verify_found_is_mended_by_the_next_run_too(two: Rig) -> None:
    two.doit("models")
    file = store(two) / sha256(A)
    before = file.stat()
    file.chmod(0o644)
    file.write_bytes(A[::-1])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    two.doit("verify", code=1)
    assert two.doit("models").executed == {"models"}
    assert place(two, "checkpoints/a.ckpt").read_bytes() == A


def start(rig: Rig, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        rig.command(*arguments),
        cwd=PROJECT,
        env=rig.environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Lets the rest of the large download through."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def slow(machine: MachineMaker, server: ModelServer, gate: threading.Event) -> Rig:
    """A machine with one large download, of which some megabytes come until `gate` is set."""
    server.content["/big"] = noise(40_000_000, 4)
    server.ways["/big"] = Ways(before=lambda asked: asked.number <= 2 or gate.wait(100))
    rig = machine(models={"files": [entry(server, "loras/big.pt", "/big")]})
    rig.doit("directories")
    return rig


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_ended_midway_is_gone_on_with(
    slow: Rig, server: ModelServer, gate: threading.Event, number: signal.Signals
) -> None:
    run = start(slow, "models")
    until(lambda: server.bytes > 10_000_000)
    run.send_signal(number)
    output, _ = run.communicate(timeout=10)
    assert run.returncode == (-9 if number == signal.SIGKILL else 128 + number), output
    assert not place(slow, "loras/big.pt").exists()
    before = server.bytes
    gate.set()
    slow.doit("models")
    assert place(slow, "loras/big.pt").read_bytes() == server.content["/big"]
    assert server.bytes - before < 40_000_000


def test_how_far_it_is_can_be_read_by_others_while_it_goes_on(
    slow: Rig, gate: threading.Event
) -> None:
    run = start(slow, "models")
    until(lambda: (models(slow).percent or 0) > 1)
    task = models(slow)
    assert task.state == "running"
    assert (task.percent or 100) < 100
    assert re.fullmatch(r"0 of 1 files, [\d.]+ MB of 40\.0 MB, .*B/s", task.detail)
    left = getattr(run_journal.read(slow.layout), "seconds_left", None)
    assert left, "nothing waits for it, and it knows how far it is"
    gate.set()
    assert run.wait(60) == 0
    assert (models(slow).state, models(slow).detail) == ("done", "")


def models(rig: Rig) -> run_journal.Task:
    """The task as the journal has it."""
    run = run_journal.read(rig.layout)
    found = [task for task in run.tasks if task.name == "models"] if run else []
    return found[0] if found else run_journal.Task("models", "")


def test_a_download_that_was_given_up_can_be_cleaned(slow: Rig, server: ModelServer) -> None:
    run = start(slow, "models")
    until(lambda: server.bytes > 10_000_000)
    assert "removed" not in slow.doit("clean", "-n", "models", code=None).output
    run.kill()
    run.wait()
    assert ".part" in slow.doit("clean", "models").output
    assert not list(store(slow).glob("*.part*"))


def test_a_new_model_is_seen_by_the_running_instance(two: Rig, server: ModelServer) -> None:
    added = two.spec["models"]["files"].pop()
    two.doit()
    assert two.client().get("/models/checkpoints") == ["a.ckpt"]
    two.spec["models"]["files"].append(added)
    planned = two.doit("plan")
    assert planned.planned == {"models"}
    assert two.doit().executed == {"models"}
    assert two.client().get("/models/loras") == ["b.pt"]
    assert two.doit().executed == set()


def test_a_token_is_in_no_file_and_no_output(two: Rig, server: ModelServer) -> None:
    secret = "hf_" + "x1y2" * 8
    two.spec["models"]["tokens"] = {"127.0.0.1": "${MY_TOKEN}"}
    run = two.doit("models", MY_TOKEN=secret, HF_TOKEN=secret)
    assert secret not in run.output
    asked = [asked for count in server.counts.values() for asked in count.asked]
    assert len(asked) >= 2
    assert secret not in str([each.headers for each in asked]), "http carries no token"
    for path in two.folder.rglob("*"):
        if path.is_file() and path.stat().st_size < 1_000_000:
            assert secret.encode() not in path.read_bytes(), path


def test_a_terminal_shows_each_file_and_all_of_them(slow: Rig, gate: threading.Event) -> None:
    terminal, inner = os.openpty()
    run = subprocess.Popen(
        slow.command("models"), cwd=PROJECT, env=slow.environ({"COLUMNS": "100"}), stdout=inner
    )
    os.close(inner)
    shown = ""
    with os.fdopen(terminal, "rb", buffering=0) as screen, contextlib.suppress(OSError):
        # The end of a terminal whose other side is closed is an error (EIO).
        while piece := screen.read(65536):
            shown += piece.decode(errors="replace")
            if "loras/big.pt" in shown:
                gate.set()
    assert run.wait(30) == 0
    assert "loras/big.pt" in shown
    assert " of 40.0 MB" in shown
    assert "models" not in re.sub(r"machine=\S+", "", shown[shown.rindex("✓") + 20 :]), (
        "what is done leaves the board"
    )
