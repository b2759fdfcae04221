"""The real comfy-sdk against the gateway: what its users do works as its documentation says."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from comfy_sdk import AsyncComfy, Comfy
from comfy_sdk.events import OutputReady, Preview, Progress, StatusChange
from comfy_sdk.exceptions import (
    ComfyError,
    IdempotencyKeyReuse,
    InvalidWorkflow,
    JobFailed,
    MissingAsset,
    NotFound,
    QueueFull,
    Unauthorized,
    WorkflowFormatUi,
)

from tests.services.gateway.conftest import SAVE, Gateway, node
from tests.services.gateway.double_of_workers import Workers
from tests.services.jobs.conftest import Server

TALK = {"1": node("Say"), "9": node("Save")}


@pytest.fixture
def comfy(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Comfy:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COMFY_BASE_URL", gateway.url)
    monkeypatch.delenv("COMFY_API_KEY", raising=False)
    return Comfy()


def test_run_and_download(comfy: Comfy, workers: Workers, tmp_path: Path) -> None:
    job = comfy.run(comfy.workflows.from_json(SAVE), timeout=20)
    (output,) = job.get_outputs("9")
    assert (output.name, output.type, output.size_bytes) == ("image_00001_.png", "image", 10)
    assert (output.content_type, output.job_id) == ("image/png", job.id)
    assert output.to_bytes() == b"0123456789"
    assert output.to_bytes(range=(0, 4)) == b"01234"
    assert output.to_file(tmp_path / "it.png").read_bytes() == b"0123456789"
    assert output.to_stream(BytesIO(), range=(8, 9)) == 2
    url = output.get_download_url()
    assert (url.url.endswith("/content"), url.expires_at) == (True, None)
    again = comfy.jobs.get(job.id)
    assert [each.id for each in again.outputs] == [output.id]
    workflow = again.get_workflow()
    assert (workflow.graph, workflow.format) == (SAVE, "api")


def test_events(comfy: Comfy, workers: Workers) -> None:
    workers.pause()
    job = comfy.submit(comfy.workflows.from_json(TALK))
    threading.Timer(0.5, workers.go_on).start()
    seen = [*job.events()]
    assert isinstance(seen[0], StatusChange)
    assert seen[-1] == StatusChange("succeeded")
    assert any(isinstance(each, Preview) and each.data == b"\x89PNG" for each in seen)
    assert any(isinstance(each, Progress) and each.nodes_total == 2 for each in seen)
    (output,) = [each.output for each in seen if isinstance(each, OutputReady)]
    assert output.to_bytes() == b"0123456789"
    late = [*comfy.jobs.get(job.id).events()]
    assert [type(each) for each in late] == [OutputReady, StatusChange]


def test_a_job_outlives_the_gateway(comfy: Comfy, gateway: Gateway, workers: Workers) -> None:
    job = comfy.submit(comfy.workflows.from_json({"1": node("Hold"), "9": node("Save")}))
    ended = threading.Event()

    def follow() -> None:
        # The SDK gives up when its poll after a lost stream finds no server.
        with suppress(httpx.TransportError):
            assert [*job.events()]
        ended.set()

    threading.Thread(target=follow, daemon=True).start()
    time.sleep(1)
    began = time.monotonic()
    gateway.end()
    assert time.monotonic() - began < 1.5, "who follows is let go"
    assert ended.wait(10)
    gateway.start()
    job = comfy.jobs.get(job.id)
    assert job.cancel().status in ("canceling", "canceled")
    assert [each.status for each in job.events() if isinstance(each, StatusChange)][-1] == (
        "canceled"
    )


def test_assets_are_uploaded_once_and_found_by_loaders(
    comfy: Comfy, gateway: Gateway, workers: Workers, tmp_path: Path
) -> None:
    photo = tmp_path / "photo.PNG"
    photo.write_bytes(b"picture" * 200_000)
    asset = comfy.assets.from_file(photo)
    graph = comfy.workflows.from_json({"1": node("LoadImage"), "9": node("Save")})
    graph.set_input("1", "image", asset)
    graph.set_input("9", "image", asset)
    job = comfy.run(graph, timeout=20)
    assert asset.created_new is True
    assert job.outputs[0].to_bytes() == photo.read_bytes()
    stored = job.get_workflow().graph["1"]["inputs"]["image"]
    assert stored == f"{asset.hash.removeprefix('blake3:')}.png"
    assert (gateway.workspace / "shared" / "inputs" / stored).read_bytes() == photo.read_bytes()
    again = comfy.assets.from_bytes(photo.read_bytes(), filename="other.png")
    assert again.commit() == asset.id
    assert again.created_new is False
    video = comfy.assets.from_bytes(photo.read_bytes(), filename="other.mp4")
    assert str(video.commit()).endswith(".mp4"), "loaders go by the ending"
    assert video.get_download_url().url.startswith(gateway.url)
    video.delete()
    asset.delete()
    assert asset.commit()
    assert asset.created_new is True
    again.delete()
    again._id = asset.id
    with pytest.raises(NotFound):
        again.delete()


def test_an_output_is_the_input_of_another_job(
    comfy: Comfy, gateway: Gateway, workers: Workers
) -> None:
    first = comfy.run(comfy.workflows.from_json(SAVE), timeout=20)
    reference = {"__type": "core/ASSET", "info": {"id": first.outputs[0].id}}
    second = {"1": node("LoadImage", image=reference), "9": node("Save", image=reference)}
    job = comfy.run(comfy.workflows.from_json(second), timeout=20)
    assert job.outputs[0].to_bytes() == b"0123456789"


def test_the_list_and_its_labels(comfy: Comfy, workers: Workers) -> None:
    workers.pause()
    graph = comfy.workflows.from_json(SAVE)
    made = [comfy.submit(graph, metadata={"n": str(n), "all": "x"}) for n in range(5)]
    assert [each.id for each in comfy.list_jobs(limit=2)] == [each.id for each in made[::-1]]
    (one,) = comfy.list_jobs(metadata={"n": "3"})
    assert (one.id, one.status, one.metadata["all"]) == (made[3].id, "queued", "x")
    assert one.create_time is not None
    assert one.create_time.tzinfo is not None
    assert made[0].metadata == {"n": "0", "all": "x"}


def test_cancel_and_failure(comfy: Comfy, workers: Workers) -> None:
    job = comfy.submit(comfy.workflows.from_json({"1": node("Hold")}))
    assert job.cancel().status in ("canceling", "canceled")
    assert job.wait(timeout=10).status == "canceled"
    with pytest.raises(JobFailed) as failed:
        comfy.run(comfy.workflows.from_json({"1": node("Break")}), timeout=10)
    assert failed.value.error is not None
    assert (failed.value.error.node_id, failed.value.error.message) == ("1", "it broke")


def test_refusals_have_their_classes(comfy: Comfy, workers: Workers) -> None:
    graphs = comfy.workflows
    with pytest.raises(InvalidWorkflow, match="no instance has node class Nowhere"):
        comfy.submit(graphs.from_json({"1": node("Nowhere")}))
    with pytest.raises(WorkflowFormatUi):
        comfy.submit(graphs.from_json({"nodes": [], "links": [], "last_node_id": 1}))
    missing = {"__type": "core/ASSET", "info": {"id": "0" * 64}}
    with pytest.raises(MissingAsset):
        comfy.submit(graphs.from_json({"1": node("LoadImage", image=missing)}))
    comfy.submit(graphs.from_json(SAVE), idempotency_key="once")
    with pytest.raises(IdempotencyKeyReuse):
        comfy.submit(graphs.from_json(SAVE), idempotency_key="once")
    with pytest.raises(NotFound):
        comfy.jobs.get("5f0f5e7c-7d1c-4c1c-9a53-0d6f1d0c9d1b")
    with pytest.raises(ComfyError) as refused:
        comfy.submit(graphs.from_json(SAVE), metadata={"": ""})
    assert refused.value.code == "metadata_invalid"


def test_a_full_queue_and_a_token(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(tmp_path, server.url, token="secret", max_queued=1)
    monkeypatch.setenv("COMFY_BASE_URL", gateway.url)
    monkeypatch.setattr("comfy_sdk.client._QUEUE_RETRY_BUDGET", 1.5)
    comfy = Comfy(api_key="secret")
    graph = comfy.workflows.from_json(SAVE)
    comfy.submit(graph)
    with pytest.raises(QueueFull) as full:
        comfy.submit(graph)
    assert full.value.retry_after
    with pytest.raises(Unauthorized):
        Comfy(api_key="wrong").submit(graph)
    gateway.end()


def test_the_asynchronous_client(comfy: Comfy, workers: Workers) -> None:
    async def tried() -> None:
        async with AsyncComfy() as client:
            graph = client.workflows.from_json(TALK)
            jobs = await asyncio.gather(*(client.run(graph, timeout=20) for _ in range(5)))
            assert [len(job.outputs) for job in jobs] == [1] * 5
            assert await jobs[0].outputs[0].to_bytes() == b"0123456789"
            seen = [each async for each in jobs[0].events()]
            assert [type(each) for each in seen] == [OutputReady, StatusChange]
            listed = [each.id async for each in client.list_jobs(limit=2)]
            assert set(listed) == {job.id for job in jobs}

    asyncio.run(tried())


def test_while_the_store_is_away_clients_wait(
    comfy: Comfy, server: Server, gateway: Gateway, workers: Workers
) -> None:
    server.kill()
    threading.Timer(2, server.start).start()
    job = comfy.submit(comfy.workflows.from_json(SAVE))
    assert job.wait(timeout=20).status == "succeeded"
    assert len([*comfy.list_jobs()]) == 1, "asked for again and again, it is one job"
