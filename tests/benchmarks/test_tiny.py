"""Each benchmark runs, tiny, and leaves nothing behind: no figure is held to a limit here.

That of images isn't here: it needs Docker's daemon, or Podman, and its commands for containers,
which Buildah and runc don't have.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import yaml

from comfy_machine.host.storage import digest_folders, trees
from comfy_machine.spec.layout import Layout
from tests import starter
from tests.conftest import uv_cache
from tests.contract.client import until
from tests.forge import Forge
from tests.rig import PROJECT, SIMULATOR, free_ports

# Some take half a minute, and several times that on a busy machine.
pytestmark = pytest.mark.timeout(600)


def started_in(folder: Path) -> list[list[str]]:
    """The commands of all processes whose temporary folder is this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == str(folder):
                found.append(process.cmdline())
        except psutil.Error:
            continue
    return found


@contextmanager
def benchmark(folder: Path, name: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    """A benchmark while it runs; it is waited for, and nothing of it may be left."""
    folder.mkdir()
    program = [sys.executable, "-m", f"tests.benchmarks.{name}", *map(str, words)]
    env = os.environ | {"TMPDIR": str(folder)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        program, cwd=PROJECT, env=env, stdout=pipe, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
            process.wait(30)
        finally:
            # Killed, it would leave its machines running.
            starter.end(process)
    until(lambda: not started_in(folder), 60, f"the end of {started_in(folder)}")
    # Node keeps what it compiled.
    assert {path.name for path in folder.iterdir()} <= {"node-compile-cache"}


def figures(folder: Path, name: str, *words: object) -> str:
    """What a benchmark prints; that a figure is missed is no failure."""
    with benchmark(folder, name, *words) as process:
        said, _ = process.communicate(timeout=500)
    assert process.returncode in (0, 1), said
    return said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "tmp"


def test_health(folder: Path) -> None:
    tiny = ["--instances", 3, "--rate", 40, "--seconds", 0.2, "--idle", 0.2, "--rounds", 1]
    said = figures(folder, "health", *tiny)
    for figure in ("idle for 0.2 s", "p99 of /livez at 40/s", "an instance is back", "at the end"):
        assert figure in said, said


def test_instances(folder: Path, built: Layout) -> None:
    tiny = ["--rounds", 1, "--often", 1, "--imports", 0, "--gpus", 2, "--built", built.workspace]
    said = figures(folder, "instances", *tiny)
    for figure in ("ready noticed", "2 together", "doit status", "no-op over", "PM2 asked"):
        assert figure in said, said


def test_instances_that_are_stopped_in_the_middle_leave_nothing(
    folder: Path, built: Layout
) -> None:
    tiny = ["--rounds", 1, "--imports", 0, "--gpus", 2, "--built", built.workspace]
    with benchmark(folder, "instances", *tiny) as process:

        def instance_runs() -> bool:
            assert process.poll() is None
            return any("--port" in command for command in started_in(folder))

        until(instance_runs, 100, "an instance")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


def test_load() -> None:
    load = PROJECT / "tests" / "benchmarks" / "load.py"
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        said = subprocess.check_output(
            [sys.executable, str(load), str(server.server_port), "/", "50", "0.5"], timeout=60
        )
        server.shutdown()
    found = json.loads(said)
    assert found["codes"] == [200]
    assert len(found["latencies"]) == 25


def test_jobs(folder: Path) -> None:
    tiny = ["--jobs", 3, "--gpus", 2, "--long", 2, "--short", 4, "--queued", 20, "--seconds", 1]
    said = figures(folder, "jobs", *tiny)
    for figure in ("overhead per job over", "comfy-api-proxy", "of posting directly",
                   "killed worker", "cut-off machine", "submits per second",
                   "memory of the scheduler", "p99 of the API"):  # fmt: skip
        assert figure in said, said


def test_job_upgrade(folder: Path, built: Layout) -> None:
    tiny = ["--jobs", 40, "--gpus", 1, "--built", built.workspace]
    said = figures(folder, "job_upgrade", *tiny)
    for figure in ("an upgrade lost: 0 ", "it repeated: 0 ", "without a result"):
        assert figure in said, said


def test_mission(folder: Path) -> None:
    said = figures(folder, "mission", "--workspaces", 1, "--restarts", 0, "--cached")
    assert "1: installed" in said, said
    assert "workers connected at the first try, of 2" in said, said


def test_models(folder: Path, built: Layout, tmp_path: Path) -> None:
    said = figures(folder, "models", "--tiny", "--folder", tmp_path, "--built", built.workspace)
    assert "WRONG" not in said
    assert "a wrong file" not in said
    assert "reached" in said, said
    assert list(tmp_path.iterdir()) == [folder]


def test_build(folder: Path, tmp_path: Path) -> None:
    caches = tmp_path / "caches"
    caches.mkdir()
    (caches / "uv").symlink_to(uv_cache())
    (caches / "npm").symlink_to(os.environ.get("NPM_CONFIG_CACHE", Path.home() / ".npm"))
    tiny = ["--alone", "--runs", 1, "--nodes", 1, "--many", 1, "--caches", caches]
    said = figures(folder, "build", *tiny)
    for figure in ("cold build", "second run", "adding one node", "ours, cold build, by task"):
        assert figure in said, said


def test_load_report(folder: Path) -> None:
    said = figures(folder, "load_report", "--pairs", 1)
    for figure in ("CPU of the proof over that of --quick-test-for-ci", "with the report"):
        assert figure in said, said


def test_environments(folder: Path, built: Layout, tmp_path: Path) -> None:
    (home,) = digest_folders.list_folders(built.environments)
    trees.copy(home, tmp_path / "environment", lambda _: False)
    said = figures(folder, "environments", "--environment", tmp_path / "environment", "--rounds", 1)
    for figure in ("grown: native libraries shared", "all hard links", "all copied", "read whole"):
        assert figure in said, said
    assert {path.name for path in tmp_path.iterdir()} == {"environment", folder.name}


def test_wild_goes_from_a_plain_list_to_a_healthy_machine_and_adds_a_pack(
    folder: Path, forge: Forge, tmp_path: Path
) -> None:
    broken = forge.node("broken", {"__init__.py": "import nowhere_to_be_found\n"})
    nodes: list[dict[str, object]] = [{"url": broken.url}, {"url": forge.node("sound").url}]
    first = free_ports(2)
    spec = {
        "workspace": "workspace",
        "comfyui": {"path": str(SIMULATOR)},
        "python": {"torch": "none"},
        "custom_nodes": nodes,
        "instances": {"cpu_only": True, "gpus": 1, "port_start": first},
        "health": {"port": first + 1},
    }
    plain, edited = tmp_path / "plain.yaml", tmp_path / "edited.yaml"
    plain.write_text(yaml.safe_dump(spec))
    nodes[0] |= {"optional": True}
    edited.write_text(yaml.safe_dump(spec))
    said = figures(folder, "wild", plain, edited, "--rounds", 1, "--add", forge.node("added").url)
    for figure in (
        "run 1 of plain.yaml: exit code 2",
        "run 2 of edited.yaml: exit code 0",
        "runs until",
        "a second run over doit itself",
        "the proof over a bare",
    ):
        assert figure in said, said
    assert "failed" not in said, said


def test_imports_compares_what_it_finds_with_what_is_true(folder: Path, tmp_path: Path) -> None:
    def write(place: str, content: object) -> None:
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else json.dumps(content))

    write("comfyui/nodes.py", "NODE_CLASS_MAPPINGS = {'KSampler': 1}")
    write("packs/me/pack/nodes.py", "NODE_CLASS_MAPPINGS = {'Crop': 1, 'Blend': 1, 'Lost': 1}")
    for kind in ("Crop", "Blend", "Lost", "KSampler"):
        node = {"id": 1, "type": kind, "properties": {"aux_id": "other/tools"}}
        write(f"packs/me/pack/{kind}.json", {"nodes": [node]})
    github = "https://github.com"
    listed = {f"{github}/me/pack": [["Crop"], {}], f"{github}/other/tools": [["Blend"], {}]}
    write("lists/extension-node-map.json", listed)
    write("lists/custom-node-list.json", {"custom_nodes": []})
    write("lists/model-list.json", {"models": []})
    places = {"workflows": "packs", "catalogue": "lists", "comfyui": "comfyui"}
    words = [word for name, place in places.items() for word in (f"--{name}", tmp_path / place)]
    said = figures(folder, "imports", *words, "--show", 5)
    assert "3 workflows with custom nodes, of 1 repositories" in said
    assert "no source: 1 × Lost" in said
    assert "wrong: 1 × Blend of me/pack taken for other/tools" in said
    assert "| comfy-machine | 66.7% (2/3) | 66.7% (2/3) | 50.0% (1/2) | – | 1 |" in said
    assert "not reached: classes with a source, right" in said


def test_adoption(folder: Path, forge: Forge, tmp_path: Path, built: Layout) -> None:
    comfyui = tmp_path / "ComfyUI"
    repository = forge.copy("ComfyUI", SIMULATOR)
    subprocess.run(["git", "clone", "--quiet", repository.url, comfyui], check=True)
    node = forge.node("pack")
    subprocess.run(["git", "clone", "--quiet", node.url, comfyui / "custom_nodes/pack"], check=True)
    (home,) = digest_folders.list_folders(built.environments)
    trees.copy(home, comfyui / "venv", lambda _: False)
    said = figures(folder, "adoption", comfyui)
    assert "✓ installations with the same pixels: 1 " in said, said
    assert "✓ installations in which nothing changed: 1 " in said, said
    assert "✓ share of packages with the version of before: 1 " in said, said
