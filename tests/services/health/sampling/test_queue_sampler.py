"""The jobs as the health server tells them, before a real gateway: one that is well, that asks for
a token, that hangs, that is away, that answers nonsense."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from comfy_machine.services.health.model.settings import Jobs
from comfy_machine.services.health.sampling import gateway_link, job_pictures, queue_sampler
from comfy_machine.services.health.sampling.gateway_link import Silent
from comfy_machine.services.health.sampling.job_pictures import Pictures
from tests.contract.client import until
from tests.rig import free_ports
from tests.services import moments as m
from tests.services.conftest import SceneMaker
from tests.services.gateway.conftest import SAVE, Gateway, gateway, node, workers
from tests.services.gateway.double_of_home import home
from tests.services.gateway.double_of_workers import INSTANCE, Workers
from tests.services.jobs.conftest import Server, server
from tests.services.scene import Scene
from tests.services.test_endpoints import VERDICTS

__all__ = ["gateway", "server", "workers"]
PNG = b"\x89PNG\r\n\x1a\n, as good as any"
ASSET = "0a64c1b2-7a0d-4f1e-9d5b-1c2d3e4f5a6b.0123456789abcdef01234567"
PROMPT = 1.0
"""Seconds in which every answer must be there."""


def jobs(url: str) -> dict[str, Any]:
    """The part of the settings about jobs."""
    return {"apps": [], "port": None, "gateway": url}


def queue(scene: Scene) -> dict[str, Any]:
    told: dict[str, Any] = scene.told("/health/comfyui")["jobs"]
    return told


def metrics(scene: Scene) -> str:
    return scene.get("/metrics").text


@pytest.fixture
def seen(scene: SceneMaker, gateway: Gateway) -> Scene:
    """A health server that knows of the gateway."""
    real = scene(settings={"jobs": jobs(gateway.url)})
    real.serve()
    real.wait(lambda: queue(real)["ok"])
    return real


def test_what_waits_runs_and_has_ended_is_told(
    seen: Scene, gateway: Gateway, workers: Workers
) -> None:
    made = gateway.submit({"1": node("Save", content="not a picture")})["id"]
    assert gateway.job(made, wait=10)["status"] == "succeeded"
    broken = gateway.submit({"7": node("Break")})["id"]
    assert gateway.job(broken, wait=10)["status"] == "failed"
    held = gateway.submit({"1": node("Say"), "2": node("Hold")})["id"]
    until(lambda: gateway.ask("GET", "/api/v2/queue").json()["running"] == 1, 10, "it to run")
    workers.pause()
    begun = time.time()
    for _ in range(3):
        gateway.submit(SAVE)
    seen.wait(lambda: queue(seen)["waiting"] == 3 and queue(seen)["runs"][0]["node"] == "2")
    told = queue(seen)
    assert begun < told["oldest"] < time.time()
    assert (told["running"], told["dead"], told["paused"]) == (1, 0, False)
    assert (told["reason"], told["advice"]) == ("", "")
    (runs,) = told["runs"]
    assert (runs["id"], runs["instance"], runs["owner"]) == (held, INSTANCE, "local")
    assert runs["progress"] == 0.5
    shown = seen.get(runs["preview"])
    assert (shown.status_code, shown.content) == (200, b"\x89PNG")
    assert (shown.headers["content-type"], shown.headers["cache-control"]) == (
        "image/png", "no-store",
    )  # fmt: skip
    failed, well = told["ended"]
    assert (failed["id"], failed["status"], failed["picture"]) == (broken, "failed", "")
    assert failed["error"] == {
        "type": "ValueError", "message": "it broke", "node": "7", "node_type": "Break",
    }  # fmt: skip
    assert (well["id"], well["status"], well["error"]) == (made, "succeeded", None)
    assert well["picture"].startswith(f"/health/comfyui/pictures/{made}.")
    assert "comfy_machine_jobs_waiting 3.0" in metrics(seen)
    assert "comfy_machine_jobs_running 1.0" in metrics(seen)
    gateway.ask("POST", f"/api/v2/jobs/{held}/cancel")
    seen.wait(lambda: queue(seen)["running"] == 0)
    for job in (held, made, "x"):
        assert seen.get(f"/health/comfyui/previews/{job}").status_code == 404


def test_jobs_that_wait_in_vain_are_told(seen: Scene, gateway: Gateway) -> None:
    job = gateway.submit(SAVE)["id"]
    seen.wait(lambda: queue(seen)["stuck"])
    (stuck,) = queue(seen)["stuck"]
    assert (stuck["jobs"], stuck["id"]) == (1, job)
    assert stuck["why"].startswith("no instance is there")


def test_a_thumbnail_is_what_an_instance_makes_of_the_picture(
    server: Server, seen: Scene, gateway: Gateway
) -> None:
    with home() as instance:
        instance.answers["/view"] = "small"
        instance.kind = "image/webp"
        workers = Workers(server.url, gateway.workspace, instance.url)
        made = gateway.submit(SAVE)["id"]
        gateway.job(made, wait=10)
        seen.wait(lambda: queue(seen)["ended"])
        end = queue(seen)["ended"][0]
        small = until(lambda: (it := seen.get(end["thumbnail"])).ok and it, 20, "the thumbnail")
        assert small
        assert (small.content, small.headers["content-type"]) == (b'"small"', "image/webp")
        (asked,) = {path for _, path, _, _ in instance.asked if path.startswith("/view")}
        assert asked.startswith("/view?preview=webp%3B60&filename=")
        assert seen.get(end["picture"]).content == b"0123456789"
        other = end["thumbnail"].replace(made, ASSET[:36])
        assert seen.get(other).status_code == 404
        workers.end()


def test_a_picture_is_given_once_it_is_told_of_and_kept_without_the_gateway(
    seen: Scene, gateway: Gateway, workers: Workers
) -> None:
    image = gateway.ask("POST", "/api/v2/assets", files={"file": ("a.png", PNG, "image/png")},
                        data={"file_path": "a.png"}).json()["id"]  # fmt: skip
    made = gateway.submit({"1": node("Save", image=image)})["id"]
    gateway.job(made, wait=10)
    seen.wait(lambda: queue(seen)["ended"])
    path = queue(seen)["ended"][0]["picture"]
    picture = seen.get(path)
    assert (picture.status_code, picture.content) == (200, PNG)
    assert picture.headers["content-type"] == "image/png"
    assert picture.headers["x-content-type-options"] == "nosniff"
    assert picture.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert "immutable" in picture.headers["cache-control"]
    assert seen.get(path, headers={"Host": "a.example"}).status_code == 403
    for other in (ASSET, image, f"{made}.{'0' * 24}", "..", "x" * 5000, f"{ASSET}%2f.."):
        assert seen.get(f"/health/comfyui/pictures/{other}").status_code == 404, other
    with hanging(gateway):
        assert seen.get(path).content == PNG


@contextmanager
def hanging(gateway: Gateway) -> Iterator[None]:
    gateway._process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        gateway._process.send_signal(signal.SIGCONT)


def test_a_gateway_that_hangs_keeps_no_answer_waiting(
    seen: Scene, gateway: Gateway, workers: Workers
) -> None:
    made = [gateway.submit(SAVE)["id"] for _ in range(queue_sampler.MOST_ENDED)]
    for job in made:
        gateway.job(job, wait=10)
    seen.wait(lambda: len(queue(seen)["ended"]) == len(made))
    pictures = [each["picture"] for each in queue(seen)["ended"]]
    with hanging(gateway):
        took: dict[str, tuple[int, float]] = {}

        def ask(path: str) -> None:
            begun = time.monotonic()
            code = seen.get(path).status_code
            took[path] = (code, time.monotonic() - begun)

        askers = [threading.Thread(target=ask, args=(path,)) for path in pictures]
        for each in askers:
            each.start()
        answers = [path.format(gpu=0) for path in VERDICTS]
        while any(each.is_alive() for each in askers):
            for path in (*answers, "/metrics", "/"):
                ask(path)
        seen.wait(lambda: not queue(seen)["ok"])
        assert queue(seen)["reason"] == "the gateway doesn't answer within 1.5 s"
        assert (queue(seen)["waiting"], queue(seen)["ended"]) == (None, [])
        assert "comfy_machine_jobs" not in metrics(seen)
        for path in (*answers, "/metrics", "/"):
            ask(path)
        assert max(seconds for _, seconds in took.values()) < PROMPT, took
        assert {took[path][0] for path in pictures} == {503}
    seen.wait(lambda: queue(seen)["ok"])
    assert queue(seen)["waiting"] == 0


def test_one_that_is_away_is_told_and_found_again(seen: Scene, gateway: Gateway) -> None:
    gateway.end()
    seen.wait(lambda: queue(seen)["reason"] == "the gateway doesn't answer")
    gateway.start()
    seen.wait(lambda: queue(seen)["ok"])


def test_the_token_opens_the_gateway_and_is_in_no_answer(
    scene: SceneMaker, server: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    closed = Gateway(tmp_path, server.url, token="canary-sécret")
    request.addfinalizer(closed.end)
    closed.session.headers["Authorization"] = "Bearer canary-sécret".encode()
    stranger = scene(settings={"jobs": jobs(closed.url)})
    stranger.serve()
    refused = "the gateway says: the token is missing or wrong"
    stranger.wait(lambda: queue(stranger)["reason"].startswith(refused))
    known = scene(settings={"jobs": jobs(closed.url)}, jobs_token="canary-sécret")
    known.serve()
    closed.submit(SAVE)
    known.wait(lambda: queue(known)["waiting"] == 1)
    for path in (*VERDICTS, "/metrics", "/openapi.json", "/"):
        assert "canary-s" not in known.get(path.format(gpu=0)).text
    assert "canary-s" not in known.file.read_text() + known.said


def test_where_jobs_are_off_nothing_is_told_of_them(scene: SceneMaker) -> None:
    without = scene()
    without.serve()
    assert "jobs" not in without.told("/health/comfyui")
    assert "comfy_machine_jobs" not in metrics(without)
    assert without.get(f"/health/comfyui/pictures/{ASSET}").status_code == 404
    without.tell(jobs={"apps": [], "port": None})
    assert "jobs" not in without.told("/health/comfyui"), "older settings name no gateway"
    port = free_ports(1)
    without.tell(jobs=jobs(f"http://127.0.0.1:{port}"))
    without.wait(lambda: "jobs" in without.told("/health/comfyui"))


@contextmanager
def answering(content: bytes, kind: str = "application/json", code: int = 200) -> Iterator[str]:
    """A gateway that answers everything so."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as stand:
        thread = threading.Thread(target=stand.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{stand.server_port}"
        stand.shutdown()


WELL: dict[str, Any] = {
    "paused": False, "waiting": 1, "oldest": 1.0, "oldest_waiting_seconds": 5.0, "running": 0,
    "dead": 1, "stuck": [], "runs": [], "ended": [],
}  # fmt: skip
END: dict[str, Any] = {
    "id": "j", "status": "succeeded", "instance": "i", "ended": 2.0, "seconds": 1.0,
    "error": None, "output": None,
}  # fmt: skip


@pytest.mark.parametrize(
    "told",
    [
        b"", b"{", b"null", b"[]", b"{}", b'"x"', b"[" * 100_000,
        json.dumps(WELL | {"waiting": "many"}).encode(),
        json.dumps(WELL | {"dead": float("inf")}).encode(),
        json.dumps(WELL | {"runs": 5}).encode(),
        json.dumps(WELL | {"runs": [5]}).encode(),
        json.dumps(WELL | {"runs": [{"id": "x", "preview_at": 5}]}).encode(),
        json.dumps(WELL | {"stuck": [{"why": "x"}]}).encode(),
        json.dumps(WELL | {"ended": [None]}).encode(),
        json.dumps(WELL | {"ended": [END | {"status": "no such"}]}).encode(),
        json.dumps(WELL | {"ended": [END | {"output": 5}]}).encode(),
        json.dumps(WELL | {"ended": "x" * (1 << 20)}).encode(),
    ],
)  # fmt: skip
def test_nonsense_is_said_to_be_that(told: bytes) -> None:
    with answering(told) as url:
        found = sampled(url)
    assert found is not None
    assert not found.ok
    wrong = ("the gateway's answer isn't what", "the gateway doesn't answer as")
    assert found.reason.startswith(wrong)


def sampled(url: str) -> Any:
    return queue_sampler.sample(m.settings(jobs=Jobs((), None, url)))


def test_a_long_answer_is_cut_and_dead_jobs_come_with_a_command() -> None:
    ends = [END | {"output": {"id": ASSET, "content_type": kind}}
            for kind in ("image/png", "image/svg+xml", "video/mp4")]  # fmt: skip
    elsewhere = END | {"output": {"id": "../../etc/passwd", "content_type": "image/png"}}
    told = WELL | {"ended": [*ends, elsewhere, *[END] * 50]}
    with answering(json.dumps(told).encode()) as url:
        found = sampled(url)
    assert len(found.ended) == queue_sampler.MOST_ENDED
    pictures = [each.picture for each in found.ended]
    assert pictures == [job_pictures.picture(ASSET), *[""] * 11]
    thumbnails = [each.thumbnail for each in found.ended]
    assert thumbnails == [job_pictures.thumbnail(ASSET), *[""] * 11]
    assert found.advice.endswith(" jobs --failed")


def test_only_small_pictures_are_given() -> None:
    large = b"x" * (job_pictures.LARGEST + 1)
    for content, kind, why in (
        (b"<svg/>", "image/svg+xml", "it is no picture but image/svg"),
        (b"<html/>", "text/html", "it is no picture"),
        (large, "image/png", "longer than"),
    ):
        with answering(content, kind) as url, pytest.raises(Silent, match=why):
            Pictures(lambda url=url: url).get("/a").result(10)  # type: ignore[misc]
    with answering(b"", code=500) as url, pytest.raises(Silent, match="answers with code 500"):
        gateway_link.ask(url, "/", 5, 10)
    with pytest.raises(Silent, match="there is no gateway"):
        Pictures(lambda: None).get("/a").result(10)


def test_pictures_are_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_pictures, "KEPT", 25)
    with answering(b"x" * 10, "image/png") as url:
        places: list[str | None] = [url]
        pictures = Pictures(lambda: places[-1])
        for name in ("/a", "/b", "/a", "/c"):
            assert pictures.get(name).result(10).content == b"x" * 10
    places.append(None)
    assert pictures.get("/a").result(10).content, "it was asked for again"
    assert pictures.get("/c").result(10).content
    with pytest.raises(Silent):
        pictures.get("/b").result(10)


def test_no_more_than_a_few_are_fetched_at_once() -> None:
    gate = threading.Event()

    def blocked() -> None:
        gate.wait(30)

    pictures = Pictures(blocked)
    futures = [pictures.get(str(n)) for n in range(job_pictures.MOST_WANTED)]
    assert pictures.get("0") is futures[0], "it is fetched once for all who want it"
    with pytest.raises(Silent, match="too many"):
        pictures.get("another")
    gate.set()
    for each in futures:
        with pytest.raises(Silent):
            each.result(10)
    with pytest.raises(Silent, match="there is no gateway"):
        pictures.get("another").result(10)
