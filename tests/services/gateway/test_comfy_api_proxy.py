"""comfy-api-proxy takes the gateway for one ComfyUI: a client of ComfyUI's own protocol that uses
most of it."""

from __future__ import annotations

import subprocess
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from comfy_sdk import Comfy
from comfy_sdk.events import Preview, Progress, StatusChange
from comfy_sdk.exceptions import InvalidWorkflow, JobFailed

from tests.contract.client import until
from tests.rig import free_ports
from tests.services.gateway.conftest import SAVE, Gateway, node
from tests.services.gateway.double_of_workers import Workers


@pytest.fixture
def comfy(
    gateway: Gateway, workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Comfy]:
    port = free_ports(1)
    program = Path(sysconfig.get_path("scripts"), "comfy-api-proxy")
    with (tmp_path / "proxy.log").open("wb") as log:
        proxy = subprocess.Popen(
            [program, "--comfyui", gateway.url, "--port", str(port)], stdout=log, stderr=log
        )
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    url = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("COMFY_BASE_URL", url)

    def answers() -> bool:
        try:
            return requests.get(f"{url}/api/v2/health", timeout=5).ok
        except OSError:
            return False

    until(answers, 20, "the proxy")
    yield Comfy()
    proxy.terminate()
    proxy.wait(20)


def test_jobs_through_the_proxy(comfy: Comfy, workers: Workers) -> None:
    graphs = comfy.workflows
    job = comfy.run(graphs.from_json(SAVE), timeout=20)
    assert job.outputs[0].to_bytes(range=(2, 3)) == b"23"
    workers.pause()
    job = comfy.submit(graphs.from_json({"1": node("Say", pause=0.3), "9": node("Save")}))
    threading.Timer(1, workers.go_on).start()
    seen = [*job.events()]
    assert seen[-1] == StatusChange("succeeded")
    assert {Progress, Preview} <= {type(each) for each in seen}
    asset = comfy.assets.from_bytes(b"picture", filename="a.png")
    graph = {"1": node("LoadImage", image=asset), "9": node("Save", image=asset)}
    assert comfy.run(graphs.from_json(graph), timeout=20).outputs[0].to_bytes() == b"picture"


def test_ends_through_the_proxy(comfy: Comfy) -> None:
    graphs = comfy.workflows
    job = comfy.submit(graphs.from_json({"1": node("Hold")}))
    assert job.cancel().status in ("canceling", "canceled")
    assert job.wait(timeout=10).status == "canceled"
    with pytest.raises(JobFailed) as failed:
        # Some time passes, since the proxy takes a job for gone that ends between its questions
        # to the history and to the queue.
        comfy.run(graphs.from_json({"1": node("Say"), "2": node("Break")}), timeout=10)
    assert failed.value.error is not None
    assert failed.value.error.message == "it broke"
    with pytest.raises(InvalidWorkflow, match="no instance has node class Nowhere"):
        comfy.submit(graphs.from_json({"1": node("Nowhere")}))
