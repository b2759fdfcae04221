"""Start, stop, and what is lost."""

from __future__ import annotations

import signal
import socket
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.contract.client import Prompt, messages, picture, preview, save, until
from tests.contract.installation import WAITING_NODE, Base, Installation, Server

PORT_TAKEN = ["[Errno 98]", "is already in use on address 127.0.0.1"]
"""What is logged where a port is taken: the newer says it without a traceback."""


def waiting(file: Path) -> Prompt:
    """A prompt that runs until the file is there."""
    return {"1": {"class_type": "WaitForFile", "inputs": {"path": str(file)}}}


def busy(comfyui: Installation, base: Base) -> tuple[Server, str, Path]:
    """A server with a running job; the job's id and the file that ends it."""
    base.add_node("waiting", "")
    base.add("custom_nodes/waiting/__init__.py", WAITING_NODE)
    server = comfyui.start(base)
    end = base.path / "end"
    prompt_id = server.queue(waiting(end))
    until(lambda: server.running() == [prompt_id], comfyui.start_timeout, "the job to run")
    return server, prompt_id, end


def preview_file(server: Server, base: Base) -> Path:
    """The file of a preview just made."""
    done = server.run({"1": picture(), "2": preview("1")})
    (image,) = done["outputs"]["2"]["images"]
    file = base.path / "temp" / str(image["filename"])
    assert file.is_file()
    return file


def test_the_log_says_where_the_server_is(comfyui: Installation) -> None:
    server = comfyui.start(comfyui.base())
    assert "Starting server\n" in server.log
    until(lambda: f"To see the GUI go to: {server.url}" in server.log, 10, "the log")


def test_a_quick_test_loads_everything_and_binds_no_port(comfyui: Installation) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = comfyui.run(comfyui.base(), "--quick-test-for-ci", port=taken.getsockname()[1])
    assert ended.process.returncode == 0, ended.log
    assert "Starting server" not in ended.log


def test_a_quick_test_wipes_temp(comfyui: Installation) -> None:
    base = comfyui.base()
    file = base.add("temp/old.png")
    comfyui.load(base)
    assert not file.exists()


def test_a_taken_port_is_found_out_after_everything_has_loaded(comfyui: Installation) -> None:
    base = comfyui.base()
    base.add_node("pack", "NODE_CLASS_MAPPINGS = {}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = comfyui.run(base, port=taken.getsockname()[1])
    assert ended.process.returncode == 1
    told = next((text for text in PORT_TAKEN if text in ended.log), "")
    assert told, ended.log
    assert ended.log.index("Import times for custom nodes:") < ended.log.index(told)
    assert (base.path / "temp").exists() is (told == "[Errno 98]"), "the newer tidies up"


def test_a_duplicate_on_a_busy_port_wipes_the_previews_of_the_live_one(
    comfyui: Installation,
) -> None:
    base = comfyui.base()
    server = comfyui.start(base)
    file = preview_file(server, base)
    port = urlsplit(server.url).port
    assert comfyui.run(base, port=port).process.returncode == 1
    assert not file.exists()
    assert server.answers()


def test_a_database_in_use_is_only_logged_unless_it_is_needed(comfyui: Installation) -> None:
    base = comfyui.base()
    comfyui.start(base)
    locked = (base.path / "comfyui.db.lock").exists()
    second = comfyui.load(base)
    assert second.process.returncode == 0, second.log
    assert ("Could not acquire lock on database" in second.log) is locked
    if "--enable-assets" in comfyui.known:
        assert locked
        assert comfyui.load(base, "--enable-assets").process.returncode == 1


def test_temp_is_wiped_at_the_start(comfyui: Installation) -> None:
    base = comfyui.base()
    old = base.add("temp/sub/old.png")
    comfyui.start(base)
    assert not old.exists()
    assert (base.path / "temp").is_dir()


def test_sigint_stops_the_server_and_removes_temp(comfyui: Installation) -> None:
    base = comfyui.base()
    server = comfyui.start(base)
    preview_file(server, base)
    assert server.stop(signal.SIGINT) == 0
    assert "Stopped server" in server.log
    assert not (base.path / "temp").exists()


def test_sigint_does_not_wait_for_the_running_job(comfyui: Installation) -> None:
    server, _, _ = busy(comfyui, comfyui.base())
    assert server.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_sigterm_and_sigkill_leave_temp(comfyui: Installation, number: signal.Signals) -> None:
    base = comfyui.base()
    server = comfyui.start(base)
    file = preview_file(server, base)
    assert server.stop(number) == -number
    assert "Stopped server" not in server.log
    assert file.is_file()


def test_queue_and_history_are_lost_with_the_process(comfyui: Installation) -> None:
    base = comfyui.base()
    server, _, _ = busy(comfyui, base)
    server.queue({"1": picture(), "2": preview("1")})
    server.stop(signal.SIGTERM)
    again = comfyui.start(base)
    assert again.json("/history") == {}
    assert again.json("/queue") == {"queue_running": [], "queue_pending": []}


def test_counters_go_on_after_a_restart(comfyui: Installation) -> None:
    base = comfyui.base()
    for _ in range(2):
        server = comfyui.start(base)
        server.run({"1": picture(), "2": save("1", "kept")})
        server.stop(signal.SIGTERM)
    files = sorted(file.name for file in (base.path / "output").iterdir())
    assert files == ["kept_00001_.png", "kept_00002_.png"]


def test_a_running_job_is_in_the_queue_and_not_in_the_history(comfyui: Installation) -> None:
    server, prompt_id, end = busy(comfyui, comfyui.base())
    ((number, found, prompt, extra, outputs),) = server.json("/queue")["queue_running"]
    extra.pop("create_time", None)
    assert (number, found, prompt, extra, outputs) == (0, prompt_id, waiting(end), {}, ["1"])
    assert server.json(f"/history/{prompt_id}") == {}
    end.touch()
    assert server.result(prompt_id)["status"]["completed"]
    assert server.running() == []


def test_pending_jobs_can_be_deleted_and_cleared(comfyui: Installation) -> None:
    server, prompt_id, _ = busy(comfyui, comfyui.base())
    ids = [server.queue({"1": picture(), "2": preview("1")}) for _ in range(3)]
    assert sorted(server.pending()) == sorted(ids)
    assert server.json("/prompt") == {"exec_info": {"queue_remaining": 4}}
    assert server.post("/queue", json={"delete": [ids[1]]}).status_code == 200
    assert sorted(server.pending()) == sorted([ids[0], ids[2]])
    assert server.post("/queue", json={"clear": True}).status_code == 200
    assert server.pending() == []
    assert server.running() == [prompt_id], "a running job is neither deleted nor cleared"


def test_a_job_may_be_put_in_front(comfyui: Installation) -> None:
    server, _, end = busy(comfyui, comfyui.base())
    last = server.queue({"1": picture(), "2": preview("1")})
    first = server.queue({"1": picture(), "2": preview("1")}, front=True)
    end.touch()
    server.result(last)
    done = list(server.json("/history"))
    assert done.index(first) < done.index(last)


def test_an_interrupt_ends_the_running_job(comfyui: Installation) -> None:
    server, prompt_id, _ = busy(comfyui, comfyui.base())
    assert server.post("/interrupt", json={"prompt_id": str(uuid.uuid4())}).status_code == 200
    assert server.running() == [prompt_id], "an interrupt for another job changes nothing"
    assert server.post("/interrupt").status_code == 200
    done = server.result(prompt_id)
    assert done["status"]["status_str"] == "error"
    assert messages(done)["execution_interrupted"]["node_type"] == "WaitForFile"


def test_an_interrupt_may_name_the_running_job(comfyui: Installation) -> None:
    server, prompt_id, _ = busy(comfyui, comfyui.base())
    server.post("/interrupt", json={"prompt_id": prompt_id})
    assert "execution_interrupted" in messages(server.result(prompt_id))


@pytest.mark.skipif(Path("/proc/driver/nvidia").exists(), reason="needs a machine without GPU")
def test_without_gpu_and_cpu_flag_the_start_fails(comfyui: Installation) -> None:
    ended = comfyui.run(comfyui.base(), cpu=False)
    assert ended.process.returncode == 1
    assert "Found no NVIDIA driver" in ended.log or "not compiled with CUDA" in ended.log
