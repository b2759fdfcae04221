"""Nobody hurts the health server: no client, no instance, no disk; and it tells no secret."""

from __future__ import annotations

import itertools
import json
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from comfy_machine import dotenv
from comfy_machine.host.comfyui import api, exchange
from comfy_machine.host.comfyui.judge import Observation
from comfy_machine.host.pm2 import app_state
from comfy_machine.host.pm2.app_processes import Census
from comfy_machine.host.system import files
from comfy_machine.services.health.conditions import instance_health
from comfy_machine.services.health.model import settings
from comfy_machine.services.health.model.answers import Layer
from comfy_machine.services.health.model.facts import Facts, Installed, Sample
from comfy_machine.services.health.sampling.instance_sampler import InstanceSampler
from comfy_machine.services.health.sampling.pm2_state import Supervisor
from comfy_machine.services.health.web import protocol
from tests.contract.client import until
from tests.rig import free_ports
from tests.services.conftest import SceneMaker
from tests.services.scene import PATIENCE, Scene, is_well
from tests.services.test_endpoints import HEALTH, OTHERS, VERDICTS, Follower, connect

ROUNDS = 10_000
GROWTH = 24 << 20
"""Bytes by which memory may differ: what allocators keep."""
GET = b"GET /health/comfyui HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene(tmp_path_factory.mktemp("scene"))
    try:
        scene.serve()
        yield scene
    finally:
        scene.close()


def server(scene: Scene) -> psutil.Process:
    assert scene.process
    return psutil.Process(scene.process.pid)


def open_files(scene: Scene) -> int:
    return server(scene).num_fds()


@contextmanager
def unharmed(scene: Scene) -> Iterator[None]:
    """Others are answered meanwhile; memory, open files and its log are as before."""
    for path in VERDICTS:
        scene.get(path.format(gpu=0))
    before, memory, said = open_files(scene), server(scene).memory_info().rss, len(scene.said)
    yield
    assert scene.get("/livez").ok
    assert scene.get(HEALTH).status_code == 503
    scene.wait(lambda: open_files(scene) <= before + 5)
    assert server(scene).memory_info().rss < memory + GROWTH
    assert len(scene.said) < said + 10_000, scene.said[-10_000:]


def malformed(chance: random.Random) -> bytes:
    """A request that is wrong in one way or another."""
    noise = chance.randbytes(chance.randrange(1, 300))
    path = chance.choice(
        [
            b"/health/comfyui/instances/" + noise.hex().encode(),
            b"/../../etc/passwd",
            b"/health/comfyui/../../../../proc/self/environ",
            b"/%2e%2e/%00/%ff/%" + noise[:1].hex().encode(),
            b"/" + b"a" * chance.choice([1, 5000, 70_000]),
            b"*",
            b"http://a.example/",
            b"/health/comfyui?wait=" + b"9" * chance.choice([1, 400, 20_000]) + b"x",
            b"/health/comfyui/instances/" + "\u0663".encode(),
            noise,
        ]
    )
    head = b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n"
    return chance.choice(
        [
            noise,
            head + b"\r\n",
            head[: chance.randrange(len(head))],
            head + b"X: " + b"x" * chance.choice([10, 5000, 70_000]) + b"\r\n\r\n",
            head + b"".join(b"X-%d: x\r\n" % number for number in range(2000)) + b"\r\n",
            head + b"X\x00: \x00\r\n\r\n",
            head + b"Content-Length: 2000000000\r\n\r\n" + noise,
            head + b"Content-Length: -1\r\n\r\n",
            head + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
            head + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n" + noise,
            head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc" + noise,
            head + b"Host: [::1\r\n\r\n",
            head + b"Authorization: Basic " + noise.hex().encode() + b"\r\n\r\n",
            head + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + noise,
            head + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n",
            head + b"\r\n" + noise,
            (head + b"\r\n") * 200,
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + noise,
            b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n" + noise,
            noise.hex().encode() + b" / HTTP/1.1\r\n\r\n",
        ]
    )


def attack(scene: Scene, seed: int, rounds: int, failed: list[bytes]) -> None:
    chance = random.Random(seed)
    for _ in range(rounds):
        content = malformed(chance)
        try:
            with socket.create_connection(("127.0.0.1", scene.port), PATIENCE) as connection:
                connection.sendall(content)
                if chance.random() < 0.3:
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(65536)
        except TimeoutError:
            failed.append(content)
        except OSError:
            continue


def test_malformed_requests_hurt_nobody(one: Scene) -> None:
    attack(one, 0, 200, [])
    with unharmed(one):
        failed: list[bytes] = []
        threads = [
            threading.Thread(target=attack, args=(one, seed, ROUNDS // 4, failed))
            for seed in range(1, 5)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            assert one.get("/livez").ok
            assert one.get(f"{HEALTH}/instances/0").status_code == 503
            for thread in threads:
                thread.join(0.05)
        assert failed == []


def test_whoever_speaks_no_http_is_told_so(one: Scene) -> None:
    head, _, body = one.raw(b"\x00\x01\x02\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["reason"] == "this isn't an HTTP request"


class Quick:
    """The protocol, with an app that holds some answers back and has long ones."""

    def __init__(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.gone = threading.Event()
        config = uvicorn.Config(
            self._app,
            http=protocol.Protocol,
            interface="asgi3",
            lifespan="off",
            limit_concurrency=20,
            log_level="error",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([listener],))
        self._thread.start()

    @property
    def connections(self) -> int:
        return len(self._server.server_state.connections)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE)

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/hold":
            while (await receive())["type"] != "http.disconnect":
                pass
            self.gone.set()
        else:
            body = b"x" * (64 << 20) if scope["path"] == "/long" else b"yes"
            await Response(body)(scope, receive, send)

    def asks(self, path: str = "/", rest: bytes = b"\r\n") -> socket.socket:
        return self.sends(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n".encode() + rest)

    def sends(self, content: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        connection.sendall(content)
        return connection

    def answers(self) -> bool:
        with self.asks() as connection:
            return connection.recv(65536).startswith(b"HTTP/1.1 200 OK")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[Quick]:
    monkeypatch.setattr(protocol, "REQUEST_TIMEOUT", 0.5)
    monkeypatch.setattr(protocol, "READ_TIMEOUT", 0.5)
    one = Quick()
    yield one
    one.close()


def test_slow_clients_are_hung_up_on(quick: Quick) -> None:
    after = quick.asks(rest=b"Content-Length: 1\r\n\r\n")
    after.recv(1)
    after.sendall(b"x")
    slow = [
        after,
        quick.sends(b""),
        quick.sends(b"GET / HTTP/1.1\r\n"),
        quick.asks("/hold", b"Content-Length: 9\r\n\r\n"),
        quick.asks("/hold", b"Transfer-Encoding: chunked\r\n\r\n1\r\n"),
        quick.asks("/", b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
        quick.asks("/long"),
    ]
    drip, ended = quick.sends(b"GET / HTTP/1.1\r\n"), False
    while not ended:
        assert quick.answers()
        try:
            drip.sendall(b"x")
        except ConnectionError:
            ended = True
    until(lambda: quick.connections == 0, PATIENCE, "all to be hung up on")
    for connection in (*slow, drip):
        connection.close()


def test_who_holds_connections_makes_room_for_who_asks(quick: Quick) -> None:
    with ExitStack() as held:
        waiting = [held.enter_context(quick.asks("/hold")) for _ in range(10)]
        until(lambda: quick.connections == 10, PATIENCE, "all to be there")
        for _ in range(100):
            held.enter_context(quick.sends(b""))
            assert quick.answers()
            assert quick.connections <= 21
        for connection in waiting:
            connection.settimeout(0.01)
            with pytest.raises(TimeoutError):
                connection.recv(1)


def test_who_asks_again_before_the_answer_is_hung_up_on_and_forgotten(quick: Quick) -> None:
    with quick.asks("/hold", b"\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n") as connection:
        assert quick.gone.wait(PATIENCE)
        assert connection.recv(1) == b""


def test_idle_connections_make_room_for_those_who_ask(one: Scene) -> None:
    """Kubernetes and a load balancer are answered, however many hold connections open."""
    with unharmed(one), ExitStack() as held:
        waiting = connect(one, b"GET /health/comfyui?wait=600 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        held.enter_context(waiting)
        first = held.enter_context(connect(one, b""))
        for _ in range(3000):
            held.enter_context(connect(one, b""))
        for path in ("/livez", "/readyz", HEALTH):
            assert one.get(path).status_code in (200, 503)
        assert open_files(one) < 2048 + 100
        assert first.recv(1) == b"", "who has kept it waiting longest had to go"
        waiting.settimeout(0.1)
        with pytest.raises(TimeoutError):
            waiting.recv(1)


def test_those_who_wait_and_leave_are_forgotten(one: Scene) -> None:
    ask = b"GET /health/comfyui?wait=600 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with unharmed(one):
        for _ in range(1500):
            connect(one, ask).close()

        def held() -> bool:
            with connect(one, ask) as connection:
                connection.settimeout(0.5)
                try:
                    return not connection.recv(1)
                except TimeoutError:
                    return True

        one.wait(held)


def test_followers_that_read_nothing_hurt_nobody(one: Scene) -> None:
    ask = b"GET /health/comfyui/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with unharmed(one), ExitStack() as held:
        for _ in range(20):
            held.enter_context(connect(one, ask))
            with one.get(f"{HEALTH}/events", stream=True) as leaves:
                next(leaves.iter_content(10))
        follower = Follower(one)
        until(lambda: len(follower.observation) == 4, PATIENCE, "all topics")
        follower.close()
    assert "Error" not in one.said


class Rogue:
    """Says whatever it likes on the port of an instance."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: dict[str, bytes | Callable[[socket.socket], None]] = {}
        self.sent = 0
        """Bytes of a flood."""
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self._ended = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def say(self, path: str, told: object) -> None:
        """A body that is as it should be, but for what it says."""
        self.answers[path] = _http(json.dumps(told).encode())

    def close(self) -> None:
        self._ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                path = connection.recv(65536).split(b" ")[1].decode()
                answer = self.answers.get(path, b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
                if isinstance(answer, bytes):
                    connection.sendall(answer)
                else:
                    answer(connection)
            except (OSError, IndexError):
                return

    def drip(self, head: bytes, each: bytes) -> Callable[[socket.socket], None]:
        """Never ends, and never pauses for as long as a time-out of one read."""

        def answer(connection: socket.socket) -> None:
            connection.sendall(head)
            while not self._ended.wait(0.1):
                connection.sendall(each)

        return answer

    def flood(self, head: bytes, each: bytes) -> Callable[[socket.socket], None]:
        def answer(connection: socket.socket) -> None:
            connection.sendall(head)
            while not self._ended.is_set():
                connection.sendall(each)
                self.sent += len(each)

        return answer


@contextmanager
def rogue(port: int) -> Iterator[Rogue]:
    one = Rogue(port)
    try:
        yield one
    finally:
        one.close()


@contextmanager
def marked(scene: Scene, gpu: int) -> Iterator[int]:
    """A process that is known as an instance; another one answers for it."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"],
        env=os.environ | scene.marks(gpu),
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        scene.note(gpu, process.pid)
        yield process.pid
        process.communicate(b"\n")


def _http(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
WELL = {"exec_info": {"queue_remaining": 1}}
ODD = "\ud800\x00\x1b[2J\u2028<script>\x85\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"rubbish",
        b"HTTP/1.1 200 " + b"\x1b[2J\xff" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 500 " + b"\x1b[2J\xff" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        _http(b"<html>hello</html>"),
        _http(b"[" * 50_000),
        _http(b" " * 100_000 + b"1"),
        _http(b'{"exec_info": {"queue_remaining": ' + b"9" * 4000 + b"}}"),
        _http(b'{"exec_info": {"queue_remaining": ' + b"9" * 5000 + b"}}"),
        _http(b'{"exec_info": {"queue_remaining": 1e999}}'),
        _http(b'{"exec_info": {"queue_remaining": "' + b"x" * 50_000 + b'"}}'),
        _http(b'{"exec_info": {"queue_remaining": -1}}'),
        OK + b"Content-Length: 2147483648\r\n\r\n{",
    ],
)
def test_an_instance_that_answers_rubbish_is_not_well(answer: bytes) -> None:
    with rogue(free_ports(1)) as one:
        one.answers["/prompt"] = answer
        health = api.probe("127.0.0.1", one.port, 2.0)
    assert not health.healthy
    assert len(health.reason) < 300


@pytest.mark.parametrize(
    ("head", "each"),
    [
        (OK + b"Content-Length: 100000\r\n\r\n", b" "),
        (b"", b"H"),
        (OK, b"X: y\r\n"),
        (CHUNKED, b"1\r\n \r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
def test_an_instance_that_answers_drop_by_drop_is_given_no_longer(head: bytes, each: bytes) -> None:
    """Every drop comes in time; all of them together never do."""
    with rogue(free_ports(1)) as one:
        one.answers["/prompt"] = one.drip(head, each)
        health = api.probe("127.0.0.1", one.port, 0.5)
    assert (health.healthy, health.answered) == (False, False)


@pytest.mark.parametrize(
    ("head", "each"),
    [
        (CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n"),
        (OK + b"Content-Length: 200000000000\r\n\r\n", b" " * 65536),
    ],
)
def test_an_answer_without_end_is_not_read_without_end(head: bytes, each: bytes) -> None:
    with rogue(free_ports(1)) as one:
        one.answers["/object_info"] = one.flood(head, each)
        assert api.ask("127.0.0.1", one.port, "/object_info") is None
    assert one.sent < exchange.LONGEST + (16 << 20)


def test_an_answer_of_too_many_values_is_not_read() -> None:
    """In memory each is twenty times as long, and to read them holds up all threads."""
    with rogue(free_ports(1)) as one:
        one.answers["/object_info"] = _http(b"[" + b"[]," * exchange.MOST_VALUES + b"1]")
        assert api.ask("127.0.0.1", one.port, "/object_info") is None


def _report(folder: Path, pid: int) -> None:
    """What a process could have written into its load report by itself."""
    error = {"type": ODD, "message": ODD * 999, "root": {"type": 5, "message": ODD}}
    end = {"event": "end", "phase": "import", "ok": False, "seconds": 1, "error": error}
    packs = [{**end, "path": f"/x/custom_nodes/{ODD[:8]}{number}"} for number in range(300)]
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    folder.mkdir(parents=True, exist_ok=True)
    told = [{"event": "attached", "whole": True}, *packs, {"event": ODD}, 5, None]
    (folder / f"{pid}-{ticks}.jsonl").write_text("\n".join(map(json.dumps, told)))


def test_what_an_instance_says_can_not_spoil_the_answers(scene: SceneMaker) -> None:
    """They stay valid, and others are seen in time, whatever it says."""
    one = scene(gpus=2)
    wanted = [{"target": f"checkpoints/{name}"} for name in ("a.ckpt", "b.ckpt")]
    one.tell(models=wanted, nodes=[{"name": ODD, "url": "https://localhost/odd"}])
    one.serve()
    port = one.settings["instances"][0]["port"]
    with rogue(port) as bad, marked(one, 0) as pid:
        _report(one.layout.reports(0), pid)
        bad.say("/prompt", WELL)
        bad.say("/queue", {"queue_running": [[0, ODD + "x" * 10**6]], "queue_pending": []})
        bad.say("/object_info", {ODD: {}, "x" * 10**6: [[[[ODD]]]]})
        bad.say("/models/checkpoints", [None, ODD, {}, ["a"], 5, "a.ckpt"])
        told = one.until(lambda told: told["layers"]["functional"]["job"])
        assert told["layers"]["functional"]["job"]["id"].isprintable()
        told = one.until(lambda told: told["layers"]["functional"]["failed_nodes"])
        assert all(map(str.isprintable, told["layers"]["functional"]["failed_nodes"]))
        oddities: tuple[object, ...] = (5, "x", None, {"a": 1}, [[[]]], [5])
        for said in oddities:
            for path in list(bad.answers):
                if path != "/prompt":
                    bad.say(path, said)
            one.tell(models=wanted[: 1 + (said is None)])
            one.until(lambda told: told["age"] < 1 and told["layers"]["running"]["ok"] is False)
            _valid(one)
        one.start(1)
        one.until(lambda told: told["layers"]["functional"]["queue"] == 0, gpu=1)
        one.servers[1].process.kill()
        one.until(lambda told: told["status"] == "down", gpu=1)
        bad.answers["/prompt"] = bad.flood(CHUNKED, b"10000\r\n" + b" " * 65536 + b"\r\n")
        one.until(lambda told: told["status"] == "unhealthy")
        bad.say("/prompt", WELL)
        one.until(lambda told: told["layers"]["functional"]["queue"] == 1)
    assert "Traceback" not in one.said


def _valid(one: Scene) -> None:
    for path in (*(path.format(gpu=0) for path in VERDICTS), "/metrics"):
        answer = one.get(path)
        assert answer.status_code in (200, 503), answer.text
        text = answer.content.decode("utf-8")
        assert "\x1b" not in text
        if path != "/metrics":
            answer.json()
    follower = Follower(one)
    until(lambda: len(follower.observation) == 4, PATIENCE, "valid events")
    follower.close()


def test_a_disk_that_is_not_as_it_should_be_spoils_only_what_it_concerns(scene: SceneMaker) -> None:
    one = scene(gpus=2)
    one.serve()
    one.start(1)
    one.until(is_well, gpu=1)

    def observation() -> None:
        """It still sees what happens."""
        mark = one.layout.draining(1)
        mark.touch()
        one.until(lambda told: told["status"] == "draining", gpu=1)
        mark.unlink()
        one.until(is_well, gpu=1)
        assert one.get("/livez").ok

    log = one.layout.log("comfyui-gpu0")
    os.mkfifo(log)
    observation()
    log.unlink()
    with log.open("wb") as file:
        file.write(os.urandom(100_000))
        file.truncate(4 << 30)
    told = one.until(lambda told: told["status"] == "down")
    log.unlink()
    log.write_bytes(b"\xff\xfe\x1b[31mred\x1b[0m \xe2\x80\xa8 \xed\xa0\x80\n")
    told = one.until(lambda told: told["log"])
    assert told["log"][-1].isprintable()

    progress = one.layout.progress("run")
    for content in (b"", b"{", b"[" * 100_000, os.urandom(1000), b"null", b'{"tasks": 5}'):
        for path in (progress, one.layout.watched(1), one.layout.refused, one.layout.warm(1)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        Path(one.settings["lock_file"]).write_bytes(content)
    with progress.open("wb") as file:
        file.truncate(2 << 30)
    observation()
    progress.unlink()
    os.mkfifo(progress)

    # The settings: damaged, then gone, then as they were.
    told_before = one.file.read_bytes()
    for damaged in (b"{", b'{"instances": 5}', told_before.replace(b"gpu", b"cpu")):
        part = one.file.with_suffix(".part")
        part.write_bytes(damaged)
        part.replace(one.file)
        observation()
    one.file.unlink()
    one.tell(instances=one.settings["instances"][:1])
    one.wait(lambda: one.get(f"{HEALTH}/instances/1").status_code == 404)
    one.layout.workspace.rename(one.folder / "moved")
    one.wait(lambda: one.get(f"{HEALTH}/instances/0").status_code == 503)
    assert one.get("/livez").ok
    (one.folder / "moved").rename(one.layout.workspace)


def test_what_was_not_looked_at_for_long_is_not_known(scene: SceneMaker) -> None:
    one = scene()
    one.tell()
    told = settings.read_settings(one.file)
    state = app_state.of(None, None, None, one.layout, "comfyui-gpu0")
    facts = Facts(told, Installed(Layer(ok=True)), models={})
    sample = Sample(1000.0, Observation("comfyui-gpu0", state, api.ProbeResult(True)))
    fresh = instance_health.assess(told.instances[0], sample, facts, 1010.0)
    stale = instance_health.assess(told.instances[0], sample, facts, 1200.0)
    assert (fresh.status, stale.status) == ("down", "unknown")
    assert stale.reason == "it was last observed 200 s ago"


SECRETS = ("hunter-number-two", 'zweitgrößtes "Geheimnis"', "first line of it\nsecond line of it")


def test_no_answer_has_a_secret(scene: SceneMaker) -> None:
    one = scene(token="token-of-the-server")
    everything = (*SECRETS, one.token)
    receipt = one.layout.secrets / "comfyui-gpu0-abc.json"
    files.write_text(receipt, json.dumps({"A": SECRETS[0], "B": SECRETS[1]}), mode=0o600)
    files.write_text(one.layout.dotenv("talks"), f"C={dotenv.quote(SECRETS[2])}\n", mode=0o600)
    log = one.layout.log("comfyui-gpu0")
    lines = [f"{secret}\nhttps://user:pass-word-of-it@localhost/{secret}" for secret in everything]
    # A line that is cut where the secret is.
    cut = "x" * 290 + SECRETS[0]
    log.write_text("\n".join([*lines, cut, f"ValueError: {' '.join(everything)}"]))
    began = {"began": 1.0, "pid": 1, "run": "1.1", "command": f"up {SECRETS[0]}", "noted": 2.0}
    task = {
        "name": SECRETS[0],
        "doc": SECRETS[0],
        "state": "failed",
        "reason": " ".join(everything),
    }
    files.write_receipt(one.layout.progress("run"), began | {"state": "failed", "tasks": [task]})
    one.serve()
    # What nobody could know when the server began.
    later = one.layout.secrets / "worker-gpu0-abc.json"
    files.write_text(later, json.dumps({"D": "only-known-later"}), mode=0o600)
    log.write_text(log.read_text() + " only-known-later")
    headers = {"Authorization": f"Bearer {one.token}"}

    def told(path: str) -> str:
        if path in OTHERS and OTHERS[path] == "text/event-stream":
            with one.get(path, headers=headers, stream=True) as answer:
                lines = itertools.islice(answer.iter_lines(), 11)
                return "".join(line.decode() for line in lines)
        return one.get(path, headers=headers).text

    secret = [part for each in everything for part in each.splitlines()]
    secret += [json.dumps(part)[1:-1] for part in secret]
    secret += [json.dumps(part, ensure_ascii=False)[1:-1] for part in secret]
    secret += ["pass-word-of-it", "only-known-later", SECRETS[0][:8]]
    one.wait(lambda: "***" in told(f"{HEALTH}/instances/0"))
    one.wait(lambda: "failed" in told(f"{HEALTH}/installation"))
    for path in (*(path.format(gpu=0) for path in VERDICTS), *OTHERS, "/", "/nothing"):
        text = told(path)
        assert [each for each in secret if each in text] == [], path


def test_instances_come_and_go_and_leave_no_thread_behind(scene: SceneMaker) -> None:
    one = scene()
    one.tell()
    told = settings.read_settings(one.file)
    census = Census(told.workspace, 10.0)
    supervisor = Supervisor(told.workspace, census)
    before = threading.active_count()
    for _ in range(200):
        sampler = InstanceSampler(told.instances[0], lambda: told, census, supervisor, lambda: None)
        threading.Thread(target=sampler.run, daemon=True).start()
        sampler.stop()
    until(lambda: threading.active_count() <= before, PATIENCE, "their threads to end")
