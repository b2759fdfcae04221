"""ComfyUI's own protocol: its clients find the pool where they expect one ComfyUI."""

from __future__ import annotations

import json
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.services.gateway.conftest import SAVE, Gateway, node
from tests.services.gateway.double_of_workers import Workers
from tests.services.jobs.conftest import Server

TALK = {"1": node("Say"), "9": node("Save")}


def submitted(gateway: Gateway, prompt: Any, code: int = 200, **about: Any) -> Any:
    answer = gateway.ask("POST", "/prompt", json={"prompt": prompt, **about})
    assert answer.status_code == code, answer.text
    return answer.json()


def history(gateway: Gateway, job: str) -> Any:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if found := gateway.ask("GET", f"/history/{job}").json():
            return found[job]
        time.sleep(0.05)
    raise AssertionError("no history")


@contextmanager
def socket(gateway: Gateway, client: str) -> Iterator[ClientConnection]:
    url = gateway.url.replace("http", "ws")
    with connect(f"{url}/ws?clientId={client}", proxy=None) as it:
        yield it


def messages(it: ClientConnection, job: str) -> list[Any]:
    """Those of a job until it has ended, and binary ones."""
    found: list[Any] = []
    while True:
        said = it.recv(timeout=10)
        if isinstance(said, bytes):
            found.append(said)
            continue
        message = json.loads(said)
        if message["data"].get("prompt_id") == job:
            found.append(message)
            if message["type"] == "executing" and message["data"]["node"] is None:
                return found


def test_a_client_of_comfyui_gets_its_image(gateway: Gateway, workers: Workers) -> None:
    client = str(uuid4())
    with socket(gateway, client) as it:
        first = json.loads(it.recv(timeout=10))
        assert first["data"]["sid"] == client
        assert first["data"]["status"]["exec_info"]["queue_remaining"] == 0
        it.send('{"type": "feature_flags", "data": {}}')
        job = submitted(gateway, TALK, client_id=client)["prompt_id"]
        said = messages(it, job)
    kinds = [each["type"] for each in said if isinstance(each, dict)]
    assert {"execution_start", "progress", "executed"} <= set(kinds)
    assert kinds.count("execution_success") == 1
    assert any(isinstance(each, bytes) for each in said), "previews too"
    entry = history(gateway, job)
    assert entry["status"]["status_str"] == "success"
    assert entry["prompt"][1:3] == [job, TALK]
    (image,) = entry["outputs"]["9"]["images"]
    content = gateway.ask("GET", "/view", params=image)
    assert (content.status_code, content.content) == (200, b"0123456789")
    assert gateway.ask("GET", "/api/history?max_items=1").json()[job] == entry


def test_the_end_is_said_when_the_history_has_it(gateway: Gateway, workers: Workers) -> None:
    with socket(gateway, "me") as it:
        for _ in range(5):
            job = submitted(gateway, SAVE, client_id="me")["prompt_id"]
            messages(it, job)
            assert gateway.ask("GET", f"/history/{job}").json()[job]["outputs"]


def test_others_hear_nothing_of_it(gateway: Gateway, workers: Workers) -> None:
    with socket(gateway, "me") as mine, socket(gateway, "other") as other:
        job = submitted(gateway, TALK, client_id="me")["prompt_id"]
        messages(mine, job)
        with suppress(TimeoutError):
            while said := other.recv(timeout=0.5):
                assert json.loads(said)["type"] == "status"


def test_the_queue_and_its_order(gateway: Gateway, workers: Workers) -> None:
    workers.pause()
    jobs = [submitted(gateway, SAVE)["prompt_id"] for _ in range(3)]
    front = submitted(gateway, SAVE, front=True)["prompt_id"]
    queue = gateway.ask("GET", "/queue").json()
    assert [each[1] for each in queue["queue_pending"]] == [front, *jobs]
    assert queue["queue_running"] == []
    assert gateway.ask("GET", "/prompt").json()["exec_info"]["queue_remaining"] == 4
    gateway.ask("POST", "/queue", json={"delete": [jobs[0], "none"]})
    assert gateway.job(jobs[0])["status"] == "canceled"
    assert gateway.job(jobs[1])["status"] == "queued"
    gateway.ask("POST", "/queue", json={"clear": True})
    assert gateway.job(jobs[1])["status"] == "canceled"
    entry = history(gateway, front)
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"


@pytest.mark.parametrize("how", ["interrupt", "named", "cancel"])
def test_a_running_job_is_ended(gateway: Gateway, workers: Workers, how: str) -> None:
    job = submitted(gateway, {"1": node("Hold")})["prompt_id"]
    while gateway.job(job)["status"] != "running":
        time.sleep(0.05)
    if how == "cancel":
        answer = gateway.ask("POST", f"/api/jobs/{job}/cancel").json()
        assert answer == {"cancelled": True}
    else:
        gateway.ask("POST", "/interrupt", json={"prompt_id": job} if how == "named" else None)
    assert gateway.job(job, wait=10)["status"] == "canceled"
    assert gateway.ask("POST", f"/api/jobs/{job}/cancel").json() == {"cancelled": False}


def test_what_can_run_nowhere_is_refused_as_comfyui_does(
    gateway: Gateway, workers: Workers
) -> None:
    error = submitted(gateway, {"1": node("Nowhere")}, 400)["error"]
    assert error["message"] == "no instance has node class Nowhere"
    assert submitted(gateway, SAVE, 400, prompt_id="1")["error"]["type"] == "invalid_prompt_id"
    assert submitted(gateway, None, 400)["node_errors"] == {}
    job = str(uuid4())
    assert submitted(gateway, SAVE, prompt_id=job)["prompt_id"] == job
    assert submitted(gateway, SAVE, 400, prompt_id=job)["error"]["type"] == "duplicate_prompt_id"
    assert gateway.ask("GET", "/history/none").json() == {}


def test_a_failed_job_says_why(gateway: Gateway, workers: Workers) -> None:
    with socket(gateway, "me") as it:
        job = submitted(gateway, {"1": node("Break")}, client_id="me")["prompt_id"]
        said = messages(it, job)
    (error,) = [each["data"] for each in said if each["type"] == "execution_error"]
    assert (error["exception_message"], error["node_id"]) == ("it broke", "1")
    assert history(gateway, job)["status"]["messages"][-1] == ["execution_error", error]


def test_the_form_of_the_editor_comes_along_and_no_secret(
    gateway: Gateway, workers: Workers
) -> None:
    extra = {"extra_pnginfo": {"workflow": {"nodes": []}}, "auth_token_comfy_org": "secret"}
    job = submitted(gateway, SAVE, extra_data=extra)["prompt_id"]
    _, _, prompt, beside, _ = history(gateway, job)["prompt"]
    assert prompt == SAVE
    assert beside["extra_pnginfo"] == extra["extra_pnginfo"]
    assert "secret" not in json.dumps(beside)
    assert gateway.ask("GET", f"/api/v2/jobs/{job}/workflow").json()["workflow"] == SAVE


def test_uploads_keep_their_names(gateway: Gateway, tmp_path: Path) -> None:
    def upload(content: bytes, name: str = "a.png", code: int = 200, **fields: str) -> Any:
        files = {"image": (name, content, "image/png")}
        answer = gateway.ask("POST", "/upload/image", files=files, data=fields)
        assert answer.status_code == code, answer.text
        return answer.json()

    assert upload(b"1") == {"name": "a.png", "subfolder": "", "type": "input"}
    assert upload(b"1")["name"] == "a.png"
    assert upload(b"2")["name"] == "a (1).png"
    assert upload(b"3", overwrite="true", subfolder="sub")["name"] == "a.png"
    inputs = gateway.workspace / "shared" / "inputs"
    assert (inputs / "a (1).png").read_bytes() == b"2"
    shown = gateway.ask("GET", "/view?filename=a.png&type=input&subfolder=sub")
    assert shown.content == b"3"
    assert gateway.ask("GET", "/view?filename=a.png [input]").content == b"1"
    for name, fields in [
        ("a.png", {"subfolder": "../.."}),
        ("a.png", {"subfolder": "/tmp"}),
        ("..", {}),
        (".hidden", {}),
        ("a.png", {"type": "output"}),
    ]:
        upload(b"4", name, 400, **fields)
    assert not [*(inputs / ".uploads").iterdir()], "nothing is left"


def test_no_path_leads_elsewhere(gateway: Gateway) -> None:
    inputs = gateway.workspace / "shared" / "inputs"
    inputs.mkdir(parents=True)
    (gateway.workspace.parent / "gateway.json").write_text("secret")
    (inputs / "link").symlink_to(gateway.workspace.parent)
    for query in [
        "filename=gateway.json&subfolder=../..&type=input",
        "filename=../../gateway.json&type=input",
        "filename=gateway.json&subfolder=/&type=input",
        "filename=x&type=other",
        "filename=",
        "filename=%00&type=input",
        "filename=gateway.json&subfolder=link&type=input",
    ]:
        assert gateway.ask("GET", f"/view?{query}").status_code == 404


def test_classes_and_devices_are_those_of_the_instances(server: Server, gateway: Gateway) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/object_info"
            body = b'{"Save": {"input": {}}, "Say": {}}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    instance = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=instance.serve_forever, daemon=True).start()
    assert gateway.ask("GET", "/object_info").json() == {}
    url = f"http://127.0.0.1:{instance.server_port}"
    workers = Workers(server.url, gateway.workspace, url)
    try:
        time.sleep(0.3)
        assert set(gateway.ask("GET", "/object_info").json()) == {"Save", "Say"}
        assert gateway.ask("GET", "/api/object_info/Save").json() == {"Save": {"input": {}}}
        (device,) = gateway.ask("GET", "/system_stats").json()["devices"]
        assert (device["name"], device["vram_total"]) == ("machine_gpu0", 24_000)
    finally:
        workers.end()
        instance.shutdown()


def test_a_socket_needs_the_token_and_ends_with_the_gateway(server: Server, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, server.url, token="secret")
    url = gateway.url.replace("http", "ws") + "/ws"
    with pytest.raises(InvalidStatus, match="403"), connect(url, proxy=None):
        pass
    headers = {"Authorization": "Bearer secret"}
    password = {"Authorization": f"Basic {b64encode(b'anybody:secret').decode()}"}
    with connect(url, proxy=None, additional_headers=password) as it:
        it.recv(timeout=5)
    elsewhere = {**password, "Origin": "http://elsewhere"}
    with (
        pytest.raises(InvalidStatus, match="403"),
        connect(url, proxy=None, additional_headers=elsewhere),
    ):
        pass
    with connect(url, proxy=None, additional_headers=headers) as it:
        it.recv(timeout=5)
        began = time.monotonic()
        gateway.end()
        with pytest.raises(ConnectionClosed):
            it.recv(timeout=5)
        assert time.monotonic() - began < 2
    assert gateway.log == ""


def test_jobs_are_listed_in_one_shape(gateway: Gateway, workers: Workers) -> None:
    jobs = [submitted(gateway, SAVE)["prompt_id"] for _ in range(2)]
    failed = submitted(gateway, {"1": node("Break")})["prompt_id"]
    for job in (*jobs, failed):
        gateway.job(job, wait=10)
    workers.pause()
    waiting = submitted(gateway, SAVE)["prompt_id"]

    def listed(**query: Any) -> list[str]:
        found = gateway.ask("GET", "/api/jobs", params=query).json()
        return [each["id"] for each in found["jobs"]]

    assert listed() == [waiting, failed, *reversed(jobs)]
    assert listed(status="completed", sort_order="asc") == jobs
    assert listed(status="pending,failed") == [waiting, failed]
    assert listed(limit=1, offset=2) == jobs[1:]
    assert set(listed(sort_by="execution_duration")) == {*jobs, failed, waiting}
    page = gateway.ask("GET", "/api/jobs?limit=3").json()["pagination"]
    assert page == {"offset": 0, "limit": 3, "total": 4, "has_more": True}
    for query in ("status=x", "sort_by=x", "sort_order=x", "limit=0"):
        assert gateway.ask("GET", f"/api/jobs?{query}").status_code == 400
    done = gateway.ask("GET", f"/api/jobs/{jobs[0]}").json()
    assert (done["status"], done["outputs_count"]) == ("completed", 1)
    assert done["workflow"]["prompt"] == SAVE
    assert done["preview_output"] == {**done["outputs"]["9"]["images"][0], "nodeId": "9",
                                      "mediaType": "images"}  # fmt: skip
    broken = gateway.ask("GET", f"/api/jobs/{failed}").json()
    assert broken["execution_error"]["exception_message"] == "it broke"
    assert gateway.ask("GET", f"/api/jobs/{uuid4()}").status_code == 404
    for jobs_asked, code in (([waiting, jobs[0]], 200), (["x"], 400), ("x", 400)):
        answer = gateway.ask("POST", "/api/jobs/cancel", json={"job_ids": jobs_asked})
        assert answer.status_code == code
    assert gateway.ask("GET", f"/api/jobs/{waiting}").json()["status"] == "cancelled"


def test_the_first_in_the_queue_have_their_workflows(gateway: Gateway, workers: Workers) -> None:
    workers.pause()
    jobs = [submitted(gateway, SAVE, client_id="me")["prompt_id"] for _ in range(17)]
    urgent = submitted(gateway, SAVE, front=True)["prompt_id"]
    found = gateway.ask("GET", "/queue").json()["queue_pending"]
    assert [each[1] for each in found] == [urgent, *jobs]
    assert [each[2] for each in found] == [SAVE] * 16 + [{}] * 2
    assert found[1][3]["client_id"] == "me"


def test_history_is_forgotten(gateway: Gateway, workers: Workers) -> None:
    first, second, third = (submitted(gateway, SAVE)["prompt_id"] for _ in range(3))
    for job in (first, second, third):
        history(gateway, job)
    workers.pause()
    waiting = submitted(gateway, SAVE)["prompt_id"]
    gateway.ask("POST", "/history", json={"delete": [first, waiting, "x", 1]})
    assert set(gateway.ask("GET", "/history").json()) == {second, third}
    assert gateway.ask("POST", "/history", json={"clear": True}).status_code == 200
    assert gateway.ask("GET", "/history").json() == {}
    assert gateway.ask("GET", f"/api/v2/jobs/{third}").status_code == 404
    assert gateway.job(waiting)["status"] == "queued"


def test_a_file_has_the_name_from_the_start_that_it_keeps(
    gateway: Gateway, workers: Workers
) -> None:
    with socket(gateway, "me") as it:
        job = submitted(gateway, SAVE, client_id="me")["prompt_id"]
        (executed,) = [each for each in messages(it, job) if each["type"] == "executed"]
    assert executed["data"]["output"]["images"][0]["subfolder"] == f"jobs/{job}"


def test_a_part_of_a_workflow(gateway: Gateway, workers: Workers) -> None:
    prompt = {
        "1": node("Say"),
        "2": node("Save", text=["1", 0], other=[]),
        "3": node("Break", text=["1", 0]),
        "4": node("Save", loop=["4", 0]),
    }
    for targets, expected in (
        (["2"], {"1", "2"}),
        (["4"], {"4"}),
        (["2", "nowhere"], set(prompt)),
        ([], set(prompt)),
        ("2", set(prompt)),
    ):
        job = submitted(gateway, prompt, partial_execution_targets=targets)["prompt_id"]
        found = gateway.ask("GET", f"/api/v2/jobs/{job}/workflow").json()["workflow"]
        assert set(found) == expected


def test_a_browser_sends_the_token_as_a_password(server: Server, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, server.url, token="se:cret")
    del gateway.session.headers["Authorization"]

    def asked(password: str, **headers: str) -> int:
        found = {name.replace("_", "-"): value for name, value in headers.items()}
        known = gateway.session.get(
            f"{gateway.url}/queue", auth=("", password), headers=found, timeout=20
        )
        return known.status_code

    refused = gateway.ask("GET", "/queue")
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert (asked("se:cret"), asked("secret"), asked("")) == (200, 401, 401)
    assert asked("se:cret", Origin=gateway.url, Sec_Fetch_Site="same-origin") == 200
    assert asked("se:cret", Origin="null") == 403
    assert asked("se:cret", Origin="http://elsewhere") == 403
    assert asked("se:cret", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors") == 403
    assert asked("se:cret", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") == 200
    for strange in ("Basic", "Basic !", "Basic se:cret", "Other se:cret"):
        answer = gateway.ask("GET", "/queue", headers={"Authorization": strange})
        assert answer.status_code == 401
    gateway.end()
    assert gateway.log == ""
