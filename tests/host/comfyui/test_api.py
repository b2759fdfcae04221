"""The client and the probe, against the simulator and against servers that answer rubbish."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from comfy_machine.host.comfyui import api
from comfy_machine.host.comfyui.own_jobs import smoke
from comfy_machine.host.system.failure import Failure
from tests.contract.installation import Installation
from tests.rig import SIMULATOR, free_ports


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a simulator that runs."""
    scratch = tmp_path_factory.mktemp("simulator")
    there = Installation(SIMULATOR, sys.executable, 60, scratch)
    base = there.base()
    source = "def run(self):\n        raise ValueError('no luck')\n"
    base.add_node(
        "failing",
        "class Fails:\n    INPUT_TYPES = classmethod(lambda cls: {'required': {}})\n"
        f"    RETURN_TYPES = ()\n    FUNCTION = 'run'\n    OUTPUT_NODE = True\n    {source}"
        "NODE_CLASS_MAPPINGS = {'Fails': Fails}\n",
    )
    try:
        yield int(there.start(base).url.rsplit(":", 1)[1])
    finally:
        there.close()


Answer = tuple[int, str, bytes]


@contextmanager
def answering(answer: Answer, name: str = "") -> Iterator[int]:
    """A server that gives one answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def version_string(self) -> str:
            return name

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, kind, body = answer
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_a_running_instance_is_healthy_and_idle(port: int) -> None:
    assert api.probe("127.0.0.1", port) == api.ProbeResult(True, "", 0)
    assert api.probe("0.0.0.0", port).healthy


def test_a_job_runs_to_its_end(port: int) -> None:
    client = api.Client("127.0.0.1", port)
    entry = client.wait(client.submit(smoke("SaveImage")), 30)
    assert [image["subfolder"] for image in entry["outputs"]["4"]["images"]] == ["smoke"]


def test_a_refused_job_has_comfyuis_reason(port: int) -> None:
    client = api.Client("127.0.0.1", port)
    with pytest.raises(Failure, match=r"refused the job: .*NoSuchNode"):
        client.submit({"1": {"class_type": "NoSuchNode", "inputs": {}}})


def test_a_job_that_fails_names_the_node_and_its_error(port: int) -> None:
    client = api.Client("127.0.0.1", port)
    job = client.submit({"1": {"class_type": "Fails", "inputs": {}}})
    with pytest.raises(Failure, match=f"job {job} ended in an error: Fails: no luck"):
        client.wait(job, 30)


def test_a_job_that_is_not_done_in_time_is_a_failure(port: int) -> None:
    client = api.Client("127.0.0.1", port)
    with pytest.raises(Failure, match=r"job unknown didn't finish within 0.2 s"):
        client.wait("unknown", 0.2)


def test_nothing_answers_where_nothing_listens() -> None:
    port = free_ports(1)
    assert api.probe("127.0.0.1", port) == api.ProbeResult(
        False, f"nothing answers on http://127.0.0.1:{port}", answered=False
    )


def test_silence_ends_in_a_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        health = api.probe("127.0.0.1", silent.getsockname()[1], 0.3)
    assert not health.healthy
    assert health.reason.endswith("within 0.3 s")


def test_a_connection_that_is_closed_at_once_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        health = api.probe("127.0.0.1", server.getsockname()[1])
        thread.join()
    assert not health.healthy


@pytest.mark.parametrize(
    "answer",
    [
        (200, "text/html", b"<html>It works!</html>"),
        (200, "application/json", b""),
        (200, "application/json", b"[]"),
        (200, "application/json", b"null"),
        (200, "application/json", b'{"exec_info": null}'),
        (200, "application/json", b'{"exec_info": {"queue_remaining": "many"}}'),
        (200, "application/json", b'{"exec_info": {}}'),
        (200, "application/json", b"\xff\xfe\x00"),
        (500, "text/plain", b"broken"),
        (404, "application/json", b'{"exec_info": {"queue_remaining": 0}}'),
    ],
)
def test_what_answers_otherwise_is_not_comfyui(answer: Answer) -> None:
    with answering(answer) as port:
        health = api.probe("127.0.0.1", port)
    assert not health.healthy
    assert "doesn't answer like ComfyUI" in health.reason


def test_the_queue_is_told() -> None:
    body = b'{"exec_info": {"queue_remaining": 3}}'
    with answering((200, "application/json", body)) as port:
        assert api.probe("127.0.0.1", port).queue == 3


@pytest.mark.parametrize("body", [b"nonsense", b"{}", b'{"error": "text"}'])
def test_a_refusal_that_is_no_comfyui_answer_is_quoted(body: bytes) -> None:
    with (
        answering((400, "text/plain", body)) as port,
        pytest.raises(Failure, match="refused the job: ") as caught,
    ):
        api.Client("127.0.0.1", port).submit({})
    assert body.decode() in str(caught.value)


def test_a_server_error_is_not_taken_for_an_answer() -> None:
    with answering((500, "text/plain", b"broken")) as port:
        client = api.Client("127.0.0.1", port)
        with pytest.raises(api.ErrorAnswer):
            client.submit({})
        with pytest.raises(api.ErrorAnswer):
            client.wait("x", 1)


@contextmanager
def pouring(head: bytes, drop: bytes, pause: float = 0.0) -> Iterator[int]:
    """A server whose answer to everything never ends."""
    over = threading.Event()

    def pour(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(head)
            while not over.is_set():
                connection.sendall(drop)
                over.wait(pause)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=pour, args=(server.accept()[0],)).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


HEAD = b"HTTP/1.1 200 OK\r\n\r\n["
CALLS = {
    "get": lambda client: client.get("/queue"),
    "submit": lambda client: client.submit({}),
    "delete": lambda client: client.delete("x"),
    "done": lambda client: client.done("x"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("head", [HEAD, b"HTTP/1.1 400 Bad\r\n\r\n", b"HTTP/1.1 100 Continue\r\n"])
def test_no_call_reads_an_answer_without_end(
    call: Callable[[api.Client], object], head: bytes
) -> None:
    with pouring(head, b"[1]," * 4096) as port:
        client = api.Client("127.0.0.1", port)
        with pytest.raises(api.BadAnswer):
            call(client)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("head", [HEAD, b"HTTP/1.1 200 OK\r\nX: "])
def test_no_call_waits_for_an_answer_that_trickles(
    call: Callable[[api.Client], object], head: bytes
) -> None:
    with pouring(head, b"1", pause=0.05) as port:
        client = api.Client("127.0.0.1", port, timeout=0.5)
        with pytest.raises(TimeoutError):
            call(client)


@pytest.mark.parametrize("call", [CALLS["get"], CALLS["submit"], CALLS["done"]])
@pytest.mark.parametrize("body", [b"[" * 100_000, b"\xff", b"", b'{"x": {"status": 5}}', b"[5]"])
def test_an_answer_of_another_shape_is_said_to_be_bad(
    call: Callable[[api.Client], object], body: bytes
) -> None:
    with answering((200, "application/json", body)) as port, contextlib.suppress(api.BadAnswer):
        call(api.Client("127.0.0.1", port))


def test_a_reason_without_end_is_cut() -> None:
    body = json.dumps({"error": {"message": "x" * 1_000_000, "details": ""}}).encode()
    with (
        answering((400, "application/json", body)) as port,
        pytest.raises(Failure, match="refused the job: xxx") as caught,
    ):
        api.Client("127.0.0.1", port).submit({})
    assert len(str(caught.value)) < 2 * api.LONGEST_REASON


def test_a_proxy_of_the_environment_is_not_asked(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_ports(1)}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert api.probe("127.0.0.1", port).healthy


@pytest.mark.parametrize(
    ("listen", "reached"),
    [
        ("127.0.0.1", "http://127.0.0.1:8188"),
        ("0.0.0.0", "http://127.0.0.1:8188"),
        ("::", "http://[::1]:8188"),
        ("::1", "http://[::1]:8188"),
        ("0.0.0.0,::", "http://127.0.0.1:8188"),
        ("10.0.0.3", "http://10.0.0.3:8188"),
        ("fe80::1", "http://[fe80::1]:8188"),
    ],
)
def test_an_instance_is_reached_from_here_wherever_it_listens(listen: str, reached: str) -> None:
    assert api.url(listen, 8188) == reached
