"""Downloads against curl, a no-op over thousands of models, kill -9, and bad servers.

All over loopback, in one run; curl and we take turns. Ours includes the sha256, the store and the
links; curl's is its bare rate. Files are written to `--folder`, which should have the speed of
memory (/dev/shm): on a slow disk both sides measure the disk.

    python tests/benchmarks/models.py [--folder /dev/shm] [--only large small no-op kill hostile]

With `--tiny` there is little of everything, to see that it runs; `--built` names a workspace whose
PM2 and environment serve then.

It ends with 1 when a figure is not reached, or a wrong file was ever left.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from comfy_machine.host.downloads.download_request import DownloadRequest
from comfy_machine.host.downloads.store import Store
from comfy_machine.host.downloads.web import HOST_CONNECTIONS, Tolerance, Web
from comfy_machine.host.storage.disk_space import DiskSpace
from comfy_machine.host.system import thread_pool
from comfy_machine.host.system.progress import Progress
from comfy_machine.host.system.units import size
from comfy_machine.models.model_pins import AT_ONCE
from comfy_machine.spec.layout import Layout
from tests.benchmarks.figures import at_least, at_most, conclude, exit_on_signals, miss, timed
from tests.conftest import copy_environments, link_supervisor, uv_cache
from tests.model_server import ModelServer, Ways, model_server, noise
from tests.rig import PROJECT, SIMULATOR, Rig, free_ports

LARGE = 2 << 30
SMALL, SMALL_SIZE = 200, 20_000
ROUNDS = 5
COUNTS = (1, 2500, 5000)
KILLED = 200_000_000
KILLS = 64
TINY = {
    "LARGE": 8 << 20, "SMALL": 3, "ROUNDS": 1, "COUNTS": (1, 2, 3), "KILLED": 20_000_000,
    "KILLS": 1,
}  # fmt: skip


class Sendfile(BaseHTTPRequestHandler):
    """The files below `folder`, by the kernel: the server is to be no part of what is measured."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    folder: Path

    def do_GET(self) -> None:
        with (self.folder / self.path.lstrip("/")).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            asked = self.headers.get("Range")
            start, _, end = asked.removeprefix("bytes=").partition("-") if asked else ("0", "", "")
            first, last = int(start), min(int(end or size), size - 1)
            self.send_response(206 if asked else 200)
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.send_header("Content-Length", str(last - first + 1))
            self.send_header("ETag", f'"{size}"')
            self.end_headers()
            while first <= last:
                first += os.sendfile(
                    self.connection.fileno(), file.fileno(), first, last - first + 1
                )

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def fast_server(folder: Path) -> Iterator[str]:
    """Several processes, so that one connection does not wait for another, as nginx has them."""
    handler = type("Files", (Sendfile,), {"folder": folder})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        children = []
        for _ in range(4):
            if (child := os.fork()) == 0:
                server.socket.setblocking(False)
                server.serve_forever()
            children.append(child)
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            for child in children:
                os.kill(child, 9)
                os.waitpid(child, 0)


def fetch(store: Store, url: str, name: str, sha256: str | None = None) -> str:
    store.folder.mkdir(parents=True, exist_ok=True)
    wanted = DownloadRequest(name, url, sha256)
    return store.fetch(wanted, Web(), DiskSpace(store.folder), Progress("benchmark")).sha256


def curl(url: str, file: Path) -> None:
    subprocess.run(["curl", "-sf", "-o", str(file), url], check=True)


def large(folder: Path) -> None:
    served = folder / "served"
    served.mkdir()
    block = os.urandom(1 << 20)
    with (served / "large").open("wb") as file:
        for _ in range(LARGE >> 20):
            file.write(block)
    ours, theirs, hashed = [], [], []
    with fast_server(served) as url:
        for _ in range(ROUNDS):
            theirs.append(timed(lambda: curl(f"{url}/large", folder / "theirs")))
            (folder / "theirs").unlink()
            store = Store(folder / "store")
            ours.append(timed(lambda store=store: fetch(store, f"{url}/large", "large")))  # type: ignore[misc]
            shutil.rmtree(store.folder)
            hashed.append(timed(lambda: subprocess.run(["sha256sum", served / "large"],
                                                       stdout=subprocess.DEVNULL)))  # fmt: skip
    rate = LARGE / statistics.median(ours) / 1e6
    bare = LARGE / statistics.median(theirs) / 1e6
    both = LARGE / statistics.median(map(sum, zip(theirs, hashed, strict=True))) / 1e6
    print(f"  {size(LARGE)}: ours {rate:.0f} MB/s, curl {bare:.0f}, curl and sha256sum {both:.0f}")
    at_least(f"{size(LARGE)} with its sha256, of curl's rate", rate / bare, 0.9)
    shutil.rmtree(served)


def small(folder: Path) -> None:
    served = folder / "served"
    served.mkdir()
    for number in range(SMALL):
        (served / str(number)).write_bytes(os.urandom(SMALL_SIZE))
    ours, whole, theirs = [], [], []
    with fast_server(served) as url:
        for _ in range(ROUNDS):
            theirs.append(timed(partial(_curl_all, url, folder / "one")))
            ours.append(timed(partial(_fetch_all, Store(folder / "store"), url)))
            shutil.rmtree(folder / "store")
            models = [entry(f"{url}/{n}", f"loras/{n}.pt") for n in range(SMALL)]
            with closing(rig_of(folder, models)) as rig:
                rig.doit("directories")
                whole.append(timed(doit(rig, "models")))
            shutil.rmtree(rig.folder)
    a, b, c = (statistics.median(each) for each in (ours, whole, theirs))
    print(
        f"  {SMALL} files: ours {a:.2f} s, all of doit models {b:.2f} s, curl one by one {c:.2f} s"
    )
    at_least(f"{SMALL} small files into the store, times as fast as curl", c / a, 5)
    print(f"  all of `doit models`, start-up and links included: {c / b:.1f} times")
    shutil.rmtree(served)


def _curl_all(url: str, file: Path) -> None:
    for number in range(SMALL):
        curl(f"{url}/{number}", file)


def _fetch_all(store: Store, url: str) -> None:
    store.folder.mkdir()
    web, room, progress = Web(), DiskSpace(store.folder), Progress("benchmark")

    def one(number: int) -> str:
        return store.fetch(
            DownloadRequest(f"{number}", f"{url}/{number}"), web, room, progress
        ).sha256

    for _, result in thread_pool.each(one, range(SMALL), AT_ONCE, ramp=True):
        assert isinstance(result, str), result


def entry(url: str, target: str) -> dict[str, Any]:
    return {"target": target, "url": url}


def rig_of(folder: Path, models: list[dict[str, Any]], built: Path | None = None) -> Rig:
    first = free_ports(2)
    spec = {
        "workspace": "ws",
        "comfyui": {"path": str(SIMULATOR)},
        "python": {"torch": "none"},
        "models": {"files": models},
        "instances": {"gpus": 1, "cpu_only": True, "port_start": first},
        "health": {"port": first + 1},
    }
    machine = Path(tempfile.mkdtemp(prefix="machine-", dir=folder))
    caches = {"XDG_CACHE_HOME": str(machine / "cache"), "UV_CACHE_DIR": uv_cache()}
    rig = Rig(machine, spec, caches)
    if built:
        link_supervisor(Layout(built).supervisor, rig.layout)
        copy_environments(Layout(built).environments, rig.layout.environments)
    return rig


def doit(rig: Rig, *arguments: str) -> Callable[[], object]:
    """What runs doit and nothing else: the rig writes the machine file anew each time."""
    how = {"cwd": PROJECT, "env": rig.environ(), "stdout": subprocess.DEVNULL, "check": True}
    return partial(subprocess.run, rig.command(*arguments), **how)


def no_op(folder: Path, built: Path | None = None) -> None:
    served = folder / "served"
    served.mkdir()
    for number in range(max(COUNTS)):
        (served / str(number)).write_bytes(b"%d" % number)
    seconds = {}
    with fast_server(served) as url, closing(rig_of(folder, [], built)) as rig:
        for count in COUNTS:
            models = [entry(f"{url}/{number}", f"loras/{number}.pt") for number in range(count)]
            rig.spec["models"]["files"] = models
            rig.doit()
            run = rig.doit()
            assert run.executed == set(), run.output
            seconds[count] = statistics.median(timed(doit(rig)) for _ in range(ROUNDS))
    one, half, all_ = seconds.values()
    print("  no-op:", ", ".join(f"{took:.2f} s with {n} models" for n, took in seconds.items()))
    at_most(f"a no-op over {COUNTS[2]} models", all_, 1.0, "s")
    ratio = (all_ - one) / (half - one)
    at_most(f"{COUNTS[2]} models over {COUNTS[1]}, start-up not counted", ratio, 2.4)
    shutil.rmtree(served)


def kill(folder: Path) -> None:
    """Each round: doit is killed at a random moment of a download, the next run has to end it."""
    content = noise(KILLED)
    digest = hashlib.sha256(content).hexdigest()
    twice: list[int] = []
    finished = 0
    with ExitStack() as stack:
        server = stack.enter_context(model_server())
        server.content["/killed"] = content
        models = [entry(f"{server.url}/killed", "loras/killed.pt")]
        rig = stack.enter_context(closing(rig_of(folder, models)))
        rig.doit("directories")
        whole = timed(doit(rig, "models"))
        for _ in range(KILLS):
            for path in (rig.layout.receipts / "models.json", rig.lock_file):
                path.unlink(missing_ok=True)
            shutil.rmtree(rig.workspace / "shared/models/.store", ignore_errors=True)
            before = server.bytes
            run = subprocess.Popen(
                rig.command("models"), env=rig.environ(), cwd=PROJECT, stdout=subprocess.DEVNULL
            )
            try:
                run.wait(random.uniform(0.3, whole))
            except subprocess.TimeoutExpired:
                run.kill()
            finished += run.wait() == 0
            rig.doit("models")
            place = rig.workspace / "shared/models/loras/killed.pt"
            if hashlib.sha256(place.read_bytes()).hexdigest() != digest:
                miss("a wrong file after kill -9")
            twice.append(server.bytes - before - KILLED)
    shutil.rmtree(rig.folder)
    most, middle = max(twice) / 1e6, statistics.median(twice) / 1e6
    print(
        f"  {KILLS} kills, {finished} came too late: {middle:.1f} MB sent again, {most:.1f} at most"
    )
    # What was on its way, and what was written since the last note, of each connection.
    bound = HOST_CONNECTIONS * 8 + 4
    at_most("bytes that a kill costs", most, bound, "MB")


HOSTILE: dict[str, Ways] = {
    "resets once": Ways(break_after=3_000_000, breaks=1),
    "resets always": Ways(break_after=3_000_000),
    "resets at random": Ways(break_after=5_000_000, chance=0.5),
    "stalls": Ways(break_after=3_000_000, how="stall", breaks=2),
    "says too long a length": Ways(lie=1000),
    "says too short a length": Ways(lie=-1000),
    "says no length": Ways(framing="close"),
    "breaks off in chunks": Ways(framing="chunked", break_after=3_000_000, how="close"),
    "ignores Range": Ways(ranges="no"),
    "ignores later Ranges": Ways(ranges="once"),
    "sends other bytes than asked for": Ways(ranges="wrong"),
    "sends fewer bytes than asked for": Ways(ranges="short"),
    "refuses later ranges": Ways(ranges="refused"),
    "changes the file midway": Ways(later=noise(20_000_000, 9), later_from=2),
    "changes it under the same ETag": Ways(later=noise(20_000_000, 9), unnoticed=True),
    "weak ETags": Ways(validators="weak"),
    "no ETag, no date": Ways(validators="none"),
    "an error page as 200": Ways(kind="text/html"),
    "encodes it unasked": Ways(gzip=True),
    "503 every second time": Ways(busy_every=2),
}


def hostile(folder: Path) -> None:
    content = noise(20_000_000, 8)
    digest = hashlib.sha256(content).hexdigest()
    for known in (digest, None):
        print(f"  with its sha256 {'known' if known else 'unknown'}:")
        for name, ways in HOSTILE.items():
            if ways.unnoticed and not known:
                continue  # A server that lies about this can't be found out by anybody.
            with model_server() as server:
                print(f"    {name}: {_outcome(server, ways, content, known, folder)}")


def _outcome(
    server: ModelServer, ways: Ways, content: bytes, known: str | None, folder: Path
) -> str:
    server.content["/file"], server.ways["/file"] = content, Ways(**vars(ways))
    store = Store(folder / "store")
    store.folder.mkdir()
    web = Web(tolerance=Tolerance(read=1, backoff=0.02))
    right = {
        hashlib.sha256(each).hexdigest()
        for each in (content, ways.later)
        if isinstance(each, bytes)
    }
    wanted = DownloadRequest("loras/file.pt", f"{server.url}/file", known)
    try:
        store.fetch(wanted, web, DiskSpace(folder), Progress("benchmark"))
        outcome = "the right bytes"
    except Exception as error:
        outcome = f"refused: {str(error)[:100]}"
    for path in store.folder.iterdir():
        is_final = len(path.name) == 64
        if is_final and hashlib.sha256(path.read_bytes()).hexdigest() not in right & {path.name}:
            miss("a wrong file from a bad server")
            outcome = "WRONG"
    shutil.rmtree(store.folder)
    return outcome


PARTS: dict[str, Callable[[Path], None]] = {
    "large": large,
    "small": small,
    "no-op": no_op,
    "kill": kill,
    "hostile": hostile,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--only", nargs="*", choices=PARTS, default=[*PARTS])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--built", type=Path, metavar="WORKSPACE")
    options = parser.parse_args()
    exit_on_signals()
    if options.tiny:
        globals().update(TINY, HOSTILE=dict(list(HOSTILE.items())[:2]))
    parts = PARTS | {"no-op": partial(no_op, built=options.built)}
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="models-benchmark-", dir=options.folder) as folder:
        for name in options.only:
            parts[name](Path(folder).resolve())
    return conclude()


if __name__ == "__main__":
    sys.exit(main())
