"""The endpoints: what each answers, in which words and with which code, as OpenAPI has it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import Response
from starlette.types import Message

from comfy_machine.host.system import files, process
from comfy_machine.host.system.run_lock import RunLock
from comfy_machine.services.health.web.guard import Guard
from tests.contract.client import until
from tests.services.conftest import SceneMaker
from tests.services.scene import PATIENCE, Scene, is_well

HEALTH = "/health/comfyui"
VERDICTS = {
    HEALTH: "Overview",
    f"{HEALTH}/installation": "Installation",
    f"{HEALTH}/instances": "InstancesHealth",
    f"{HEALTH}/instances/{{gpu}}": "InstanceHealth",
    f"{HEALTH}/models": "ModelsHealth",
    "/livez": "Verdict",
    "/readyz": "Verdict",
}
OTHERS = {
    "/metrics": "text/plain",
    f"{HEALTH}/events": "text/event-stream",
    f"{HEALTH}/pictures/{{asset}}": "image/*",
    f"{HEALTH}/thumbnails/{{asset}}": "image/*",
    f"{HEALTH}/previews/{{job}}": "image/*",
}
ABSENT = f"{HEALTH}/instances/7"
TOPICS = {"overview", "installation", "instances", "models"}
SAID = {"status", "code", "since", "reason", "advice"}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """GPU 0 has an instance, GPU 1 has none."""
    scene = Scene(tmp_path_factory.mktemp("scene"), gpus=2)
    try:
        scene.serve()
        scene.start()
        scene.until(is_well)
        yield scene
    finally:
        scene.close()


def connect(scene: Scene, content: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", scene.port), PATIENCE)
    connection.sendall(content)
    return connection


class Follower:
    """Follows the events; `seen` has the last body of each topic."""

    def __init__(self, scene: Scene) -> None:
        asked = f"GET {HEALTH}/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
        self._connection = connect(scene, asked.encode())
        self.head: list[bytes] = []
        self.observation: dict[str, dict[str, Any]] = {}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        topic = ""
        for line in self._connection.makefile("rb"):
            if line.startswith(b"event: "):
                topic = line.removeprefix(b"event: ").decode().strip()
            elif line.startswith(b"data: "):
                self.observation[topic] = json.loads(line.removeprefix(b"data: "))
            elif not topic:
                self.head.append(line)

    def close(self) -> None:
        self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._connection.close()


def test_every_answer_is_as_the_openapi_document_says(one: Scene) -> None:
    document = one.told("/openapi.json")
    assert set(document["paths"]) == set(VERDICTS) | set(OTHERS)
    names = [each["operationId"] for path in document["paths"].values() for each in path.values()]
    assert len(names) == len(set(names))
    assert "Warning" not in one.said
    for path in document["paths"].values():
        asks = path["get"].get("security") == [{"HTTPBearer": []}]
        assert asks == ("401" in path["get"]["responses"])

    def check(path: str, asked: str, codes: set[int], method: str = "GET", **options: Any) -> None:
        answer = requests.request(method, one.url + asked, timeout=PATIENCE, **options)
        assert answer.status_code in codes, f"{asked}: {answer.text}"
        told = document["paths"][path]["get"]["responses"][str(answer.status_code)]["content"]
        schema = told["application/json"]["schema"] | {"components": document["components"]}
        jsonschema.validate(answer.json(), schema)
        assert set(answer.json()) >= SAID
        assert answer.headers["content-type"] == "application/json"

    for path, model in VERDICTS.items():
        responses = document["paths"][path]["get"]["responses"]
        for code in ("200", "503"):
            (schema,) = responses[code]["content"].values()
            assert schema["schema"]["$ref"] == f"#/components/schemas/{model}"
        check(path, path.format(gpu=0), {200, 503})
        if "422" in responses:
            check(path, path.format(gpu=1) + "?wait=no", {422})
        if "403" in responses:
            check(path, path.format(gpu=1), {403}, headers={"Host": "a.example"})
    check(f"{HEALTH}/instances/{{gpu}}", f"{HEALTH}/instances/1", {503})
    check(f"{HEALTH}/instances/{{gpu}}", ABSENT, {404})
    for path, kind in OTHERS.items():
        responses = document["paths"][path]["get"]["responses"]
        assert list(responses["200"]["content"]) == [kind]
        check(path, path, {403}, headers={"Host": "a.example"})


def test_head_has_the_code_and_no_body(one: Scene) -> None:
    for path in (*(path.format(gpu=1) for path in VERDICTS), "/metrics", "/", "/openapi.json"):
        asked, head = one.get(path), requests.head(one.url + path, timeout=PATIENCE)
        assert (head.status_code, head.content) == (asked.status_code, b""), path
        assert head.headers["content-type"] == asked.headers["content-type"]


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/health", 404),
        ("GET", f"{HEALTH}/", 404),
        ("GET", f"{HEALTH}/../../etc/passwd", 404),
        ("GET", f"{HEALTH}/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", f"{HEALTH}/instances/1%00", 422),
        ("GET", f"{HEALTH}/instances/%FF", 422),
        ("GET", f"{HEALTH}/instances/x", 422),
        ("GET", f"{HEALTH}/instances/-1", 422),
        ("GET", f"{HEALTH}/instances/{10**30}", 404),
        ("GET", f"{HEALTH}/instances/{'9' * 5000}", 422),
        ("GET", f"{HEALTH}/instances/\u0663", 422),
        ("GET", ABSENT, 404),
        ("GET", f"{HEALTH}?wait=-1", 422),
        ("GET", f"{HEALTH}?wait=601", 422),
        ("GET", f"{HEALTH}?wait=nan", 422),
        ("GET", f"{HEALTH}?wait=1e999", 422),
        ("GET", f"{HEALTH}?wait=", 422),
        ("GET", f"{HEALTH}?wait=%F0%9F%98%80", 422),
        ("GET", f"/readyz?wait={'9' * 9999}", 422),
        ("POST", HEALTH, 405),
        ("DELETE", f"{HEALTH}/instances/0", 405),
        ("OPTIONS", "/livez", 405),
        ("HEAD", f"{HEALTH}/events", 405),
    ],
)
def test_a_wrong_question_is_told_why(one: Scene, method: str, path: str, code: int) -> None:
    prepared = requests.Request(method, one.url).prepare()
    prepared.url = one.url + path
    answer = requests.Session().send(prepared, timeout=PATIENCE, allow_redirects=False)
    assert answer.status_code == code
    assert ("GET" in answer.headers.get("allow", "")) == (code == 405)
    if method == "HEAD":
        return
    told = answer.json()
    assert set(told) == SAID
    assert told["status"] == "error"
    assert abs(told["since"] - time.time()) < 3600
    assert re.fullmatch(r"[^\n]{5,100}", told["reason"]), told["reason"]
    assert told["advice"]


def test_whoever_has_no_token_learns_no_more_than_yes_or_no(scene: SceneMaker) -> None:
    one = scene(token="öffne-dich: Sesam")
    one.serve()
    for path in (*(path.format(gpu=0) for path in VERDICTS), *OTHERS, "/", "/nothing"):
        answer = one.get(path)
        if path in ("/livez", "/readyz"):
            assert set(answer.json()) == SAID
            assert "comfyui-gpu0" not in answer.text
            continue
        assert answer.status_code == 401
        assert set(answer.json()) == SAID
        assert answer.headers["www-authenticate"].startswith("Basic")
    for right in ("Bearer öffne-dich: Sesam", "bearer  öffne-dich: Sesam"):
        assert one.get(HEALTH, headers={"Authorization": right.encode()}).status_code != 401
    basic = requests.auth.HTTPBasicAuth(b"any", "öffne-dich: Sesam".encode())
    assert one.get(HEALTH, auth=basic).status_code != 401
    for wrong in (b"Bearer", b"Bearer x", b"Basic !", b"Basic /w==", b"Bearer \xff", b"\xff", b""):
        assert one.get(HEALTH, headers={"Authorization": wrong}).status_code == 401


@pytest.mark.parametrize("host", ["a.example", "[::1", "[x]", "127.0.0.1.a.example", "\u00bd", "@"])
def test_a_page_of_the_web_can_not_ask_under_a_name_of_its_own(one: Scene, host: str) -> None:
    answer = one.get(HEALTH, headers={"Host": host.encode("latin-1")})
    assert (answer.status_code, answer.json()["reason"]) == (403, "the host isn't localhost")
    assert "Traceback" not in one.said
    assert one.get("/livez", headers={"Host": host.encode("latin-1")}).ok


@pytest.mark.parametrize(
    ("client", "server", "code"),
    [
        ("127.0.0.1", "127.0.0.1", 200),
        ("::1", "::1", 200),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", 200),
        ("192.0.2.1", "192.0.2.2", 403),
        ("127.0.0.1", "192.0.2.2", 403),
        ("192.0.2.2", "127.0.0.1", 403),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", 403),
        (None, None, 403),
    ],
)
def test_without_a_token_it_answers_only_on_its_own_machine(
    client: str | None, server: str | None, code: int
) -> None:
    sent: list[Message] = []

    async def ask(path: str) -> int:
        sent.clear()
        headers = [(b"host", b"localhost")]
        ends = {"client": client and (client, 1), "server": server and (server, 9090)}
        scope = {"type": "http", "path": path, "headers": headers, **ends}
        await Guard(Response(b"told"), "")(scope, _receive, _keep)
        return int(sent[0]["status"])

    async def _receive() -> Message:
        return {"type": "http.disconnect"}

    async def _keep(message: Message) -> None:
        sent.append(message)

    assert asyncio.run(ask(HEALTH)) == code
    assert asyncio.run(ask("/livez")) == 200


def test_whoever_asks_right_after_a_run_hears_how_it_ended(one: Scene) -> None:
    """`doit && doit probe` must not fail because the server looked a moment before the end."""
    about = {"pid": os.getpid(), "run": process.run_id(), "command": "up", "tasks": []}
    times = {"began": time.time(), "noted": time.time()}

    def told() -> str | None:
        return (one.told(f"{HEALTH}/installation")["run"] or {}).get("state")

    file = one.layout.progress("run")
    for state in ("succeeded", "failed", "succeeded"):
        files.write_receipt(file, about | times | {"state": "running"})
        one.wait(lambda: told() == "running")
        files.write_receipt(file, about | times | {"state": state})
        assert told() == state
    file.unlink()


def test_whoever_asks_right_after_a_command_hears_what_it_did(one: Scene) -> None:
    """`doit rollback && doit probe` must not fail because an instance was still draining."""
    lock, mark = RunLock(one.layout.workspace), one.layout.draining(0)

    def codes() -> set[str]:
        paths = (f"{HEALTH}/instances/0", f"{HEALTH}/instances", HEALTH)
        return {str(one.told(path)["code"]) for path in paths}

    for _ in range(5):
        lock.take("rollback")
        mark.touch()
        lock.give_back()
        assert "Draining" in codes()
        lock.take("rollback")
        mark.unlink()
        lock.give_back()
        assert "Draining" not in codes()


def test_an_answer_is_held_until_it_is_well_or_time_is_up(one: Scene) -> None:
    path = f"{HEALTH}/instances/0?wait=600"
    assert one.get(path).ok, "at once, since it is well"
    assert one.get(f"{ABSENT}?wait=600").status_code == 404
    assert one.get(f"{HEALTH}/instances/1?wait=0.3").status_code == 503
    one.servers[0].process.send_signal(signal.SIGKILL)
    one.until(lambda told: told["status"] == "down")
    waiting = [f"{HEALTH}/instances/0", "/readyz"]
    held: dict[str, int] = {}
    threads = [
        threading.Thread(
            target=lambda path=path: held.update({path: one.get(f"{path}?wait=600").status_code})
        )
        for path in waiting
    ]
    for thread in threads:
        thread.start()
    assert one.get("/readyz").status_code == 503
    assert held == {}
    one.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert held == dict.fromkeys(waiting, 200)


def test_prometheus_can_read_the_metrics(one: Scene) -> None:
    answer = one.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=1.0.0; charset=utf-8"
    families = {each.name: each for each in text_string_to_metric_families(answer.text)}
    healthy = families["comfy_machine_instance_healthy"].samples
    assert {each.labels["gpu"] for each in healthy} == {"0", "1"}
    assert families["process_open_fds"].samples


def test_followers_get_everything_at_once_and_then_what_changes(one: Scene) -> None:
    follower = Follower(one)
    try:
        until(lambda: set(follower.observation) == TOPICS, PATIENCE, "all topics")
        for topic, body in follower.observation.items():
            assert set(body) >= SAID, topic
        assert any(b"text/event-stream" in line for line in follower.head)
        mark = one.layout.draining(0)
        mark.touch()

        def shown() -> str:
            return str(follower.observation["instances"]["instances"]["0"]["status"])

        until(lambda: shown() == "draining", PATIENCE, "the change")
        mark.unlink()
        until(lambda: shown() == "degraded", PATIENCE, "the change")
    finally:
        follower.close()


def test_no_more_follow_than_there_is_room_for(one: Scene) -> None:
    """Those who left, even one that asked for more before it did, make room."""
    many = [one.get(f"{HEALTH}/events", stream=True) for _ in range(64)]
    try:
        full = one.get(f"{HEALTH}/events", stream=True)
        assert full.status_code == 503
        assert set(full.json()) == SAID
        assert full.json()["reason"] == "64 clients already follow the events"
    finally:
        for each in many:
            each.close()
    ask = f"GET {HEALTH}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    for _ in range(70):
        one.raw(ask + ask)

    def room() -> bool:
        with one.get(f"{HEALTH}/events", stream=True) as answer:
            return answer.ok

    one.wait(room)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_though_some_follow_and_wait(scene: SceneMaker, number: signal.Signals) -> None:
    one = scene()
    one.serve()
    assert one.process
    followers = [one.get(f"{HEALTH}/events", stream=True) for _ in range(5)]
    asked = f"GET {HEALTH}?wait=600 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    waiting = [connect(one, asked) for _ in range(5)]
    one.process.send_signal(number)
    assert one.process.wait(PATIENCE) in (0, -number)
    assert "Traceback" not in one.said
    for answer in followers:
        answer.close()
    for connection in waiting:
        connection.close()
