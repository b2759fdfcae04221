"""The gateway before the real scheduler and workers, which run jobs on simulated instances."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from comfy_sdk import Comfy
from comfy_sdk.events import OutputReady, Progress, StatusChange
from websockets.sync.client import connect

from tests.contract.client import until
from tests.contract.conftest import installation_of
from tests.services.gateway.conftest import Gateway
from tests.services.jobs.conftest import Server
from tests.services.jobs.site import Site, kill


@pytest.fixture
def site(server: Server, gateway: Gateway, tmp_path: Path) -> Iterator[Site]:
    installation = installation_of("simulator-2026", tmp_path / "comfyui")
    it = Site(server, installation, tmp_path)
    assert it.layout.workspace == gateway.workspace
    with closing(installation), closing(it):
        it.begin()
        until(lambda: _known(gateway), 30, "the instance")
        yield it


@pytest.fixture
def comfy(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Comfy:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COMFY_BASE_URL", gateway.url)
    return Comfy()


def _known(gateway: Gateway) -> bool:
    return "Work" in gateway.ask("GET", "/object_info").json()


def test_pictures(site: Site, comfy: Comfy) -> None:
    job = comfy.run(comfy.workflows.from_json(site.pictures()), timeout=60)
    (saved,), (shown,) = job.get_outputs("2"), job.get_outputs("3")
    for output in (saved, shown):
        assert output.to_bytes().startswith(b"\x89PNG")
        assert output.size_bytes == len(output.to_bytes())
    seen = [*job.events()]
    assert [type(each) for each in seen] == [OutputReady, OutputReady, StatusChange]


def test_events_of_a_running_job(site: Site, comfy: Comfy, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    job = comfy.submit(comfy.workflows.from_json({**site.pictures(), **_work(site, gate)}))
    seen: list[Any] = []
    follower = threading.Thread(target=lambda: seen.extend(job.events()))
    follower.start()
    site.until_run()
    time.sleep(1)
    gate.touch()
    follower.join(60)
    statuses = [each.status for each in seen if isinstance(each, StatusChange)]
    assert statuses[-2:] == ["running", "succeeded"]
    assert any(isinstance(each, Progress) and each.nodes_total == 4 for each in seen)
    assert len([each for each in seen if isinstance(each, OutputReady)]) == 2


def test_a_running_job_is_cancelled(site: Site, comfy: Comfy, tmp_path: Path) -> None:
    job = comfy.submit(comfy.workflows.from_json(site.work(gate=tmp_path / "never")))
    site.until_run()
    assert job.cancel().status in ("canceling", "canceled")
    assert job.wait(timeout=30).status == "canceled"


def test_a_partners_key_reaches_its_node_and_no_answer(
    site: Site, comfy: Comfy, gateway: Gateway
) -> None:
    job = comfy.submit(comfy.workflows.from_json(site.work()), api_key="of a partner")
    assert job.wait(timeout=60).status == "succeeded"
    assert site.notes.read_text() == "run of a partner\n"
    for path in (f"/api/v2/jobs/{job.id}", f"/api/v2/jobs/{job.id}/workflow", f"/history/{job.id}"):
        assert "of a partner" not in gateway.ask("GET", path).text
    extra = {"auth_token_comfy_org": "no", "api_key_comfy_org": "by ComfyUI's own protocol"}
    body = {"prompt": site.work(), "extra_data": extra}
    submitted = gateway.ask("POST", "/prompt", json=body).json()["prompt_id"]
    assert gateway.job(submitted, wait=30)["status"] == "succeeded"
    assert site.notes.read_text().endswith("run by ComfyUI's own protocol\n")


def test_a_failed_job_is_tried_again_on_the_same_instance(site: Site, gateway: Gateway) -> None:
    job = gateway.submit(site.work(does="fail"))["id"]
    failed = gateway.job(job, wait=30)
    assert (failed["status"], failed["error"]["message"]) == ("failed", "it can't be done")
    assert failed["started_at"] is not None
    gateway.ask("POST", f"/api/v2/jobs/{job}/retry")
    assert gateway.job(job, wait=30)["status"] == "failed"
    assert site.runs() == 2, "the end of the first attempt isn't taken for that of the second"


def test_a_worker_without_a_scheduler_goes_on_beside_the_gateway(
    site: Site, gateway: Gateway, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    job = gateway.submit(site.work(gate=gate))["id"]
    site.until_run()
    kill(site.schedulers[0])
    time.sleep(12)
    gate.touch()
    assert gateway.job(job, wait=30)["status"] == "succeeded"
    assert site.runs() == 1


def test_what_no_instance_has_is_refused(site: Site, gateway: Gateway) -> None:
    nowhere = {"workflow": {"1": {"class_type": "Nowhere", "inputs": {}}}}

    def refused() -> str:
        answer = gateway.ask("POST", "/api/v2/jobs", json=nowhere)
        return str(answer.json()["error"]["message"]) if answer.status_code == 422 else ""

    # Before the worker has listed them, the classes of its instance aren't known.
    assert until(refused, 20, "a refusal") == "no instance has node class Nowhere"
    (device,) = gateway.ask("GET", "/system_stats").json()["devices"]
    assert device["name"] == "here_comfyui-gpu0"


def test_comfyuis_own_protocol(site: Site, gateway: Gateway) -> None:
    extra: dict[str, Any] = {"extra_pnginfo": {"workflow": {"nodes": []}}}
    with connect(gateway.url.replace("http", "ws") + "/ws?clientId=me", proxy=None) as socket:
        body = {"prompt": site.pictures(), "client_id": "me", "extra_data": extra}
        job = gateway.ask("POST", "/prompt", json=body).json()["prompt_id"]
        kinds: list[str] = []
        while "execution_success" not in kinds:
            said = socket.recv(timeout=60)
            kinds.append(json.loads(said)["type"] if isinstance(said, str) else "binary")
    assert {"execution_start", "executing", "executed"} <= set(kinds)
    entry = gateway.ask("GET", f"/history/{job}").json()[job]
    (image,) = entry["outputs"]["2"]["images"]
    assert gateway.ask("GET", "/view", params=image).content.startswith(b"\x89PNG")


def test_an_upload_is_what_a_loader_loads(site: Site, gateway: Gateway, comfy: Comfy) -> None:
    picture = comfy.run(comfy.workflows.from_json(site.pictures()), timeout=60).get_outputs("2")[0]
    reference = {"__type": "core/ASSET", "info": {"id": picture.id}}
    made = gateway.submit(
        {
            "1": {"class_type": "LoadImage", "inputs": {"image": reference}},
            "2": {
                "class_type": "SaveImage",
                "inputs": {"images": ["1", 0], "filename_prefix": "again"},
            },
        }
    )
    done = gateway.job(made["id"], wait=30)
    assert done["status"] == "succeeded", done["error"]


def _work(site: Site, gate: Path) -> dict[str, Any]:
    return {"4": site.work(gate=gate)["1"]}
