"""Jobs: what they cost over posting to an instance directly, and what becomes of them in trouble.

A real NATS server that syncs each write, real workers and scheduler, simulated instances, in one
run. "Direct" is a client that posts to each instance and waits at its WebSocket.

    python -m tests.benchmarks.jobs [--jobs 200] [--gpus 8] [--long 64] [--short 400] [--queued N] \
        [--rate 200] [--seconds 20]

It ends with 1 when a figure is not reached.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from uuid import uuid4

import aiohttp
import nats
import psutil
import requests

from comfy_machine.services.jobs.job_store import Store, Stored, declare
from comfy_machine.services.jobs.record import ENDED, Record
from comfy_machine.services.jobs.record_watch import RecordWatch
from tests.benchmarks.figures import at_least, at_most, conclude, exit_on_signals
from tests.contract.client import Prompt, until
from tests.contract.conftest import installation_of
from tests.rig import free_ports
from tests.services.gateway.conftest import Gateway
from tests.services.jobs.conftest import Server
from tests.services.jobs.site import Site, kill

WARM = 5
"""Jobs before those that are measured."""
BY_API = 15
"""Milliseconds that a job may take more by the API than posted directly."""


class Client:
    """Submits jobs and hears of their ends."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ended: dict[str, asyncio.Future[Record]] = {}
        self.leased: dict[str, float] = {}

    def changed(self, stored: Stored) -> None:
        record = stored.record
        if record.state == "leased":
            self.leased.setdefault(record.id, time.perf_counter())
        waiting = self.ended.get(record.id)
        if waiting and record.state in ENDED and not waiting.done():
            waiting.set_result(record)

    async def submit(self, workflow: Prompt) -> str:
        job = str(uuid4())
        self.ended[job] = asyncio.get_running_loop().create_future()
        body = json.dumps(workflow).encode()
        assert await self.store.create(Record(id=job, submitted=time.time()), body)
        return job

    async def gpu_of(self, job: str) -> int:
        """Where the job runs."""
        stored = await self.store.read(job)
        assert stored
        return int(stored.record.instance[-1])

    async def run(self, workflow: Prompt) -> Record:
        return await self.ended[await self.submit(workflow)]


@asynccontextmanager
async def client_of(site: Site) -> AsyncIterator[Client]:
    connection = await nats.connect(site.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    stream = connection.jetstream(timeout=30)
    client = Client(await declare(stream))
    watch = RecordWatch(connection, stream)
    await watch.start(client.changed, lambda job: None)
    try:
        yield client
    finally:
        await watch.stop()
        await connection.close()


class Direct:
    """One connection to one instance."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session, self._url, self._id = session, url, uuid4().hex

    async def connect(self) -> None:
        self._socket = await self._session.ws_connect(f"{self._url}/ws?clientId={self._id}")

    async def run(self, workflow: Prompt) -> None:
        job = str(uuid4())
        body = {"prompt": workflow, "client_id": self._id, "prompt_id": job}
        async with self._session.post(f"{self._url}/prompt", json=body) as answer:
            assert answer.status == 200, await answer.text()
        async for message in self._socket:
            if message.type != aiohttp.WSMsgType.TEXT:
                continue
            said = json.loads(message.data)
            about = said["data"]
            if said["type"] == "executing" and about["node"] is None and about["prompt_id"] == job:
                break
        async with self._session.get(f"{self._url}/history/{job}") as answer:
            assert job in await answer.json()


@asynccontextmanager
async def direct_to(site: Site) -> AsyncIterator[list[Direct]]:
    async with aiohttp.ClientSession() as session:
        found = [Direct(session, each.url) for each in site.instances.values()]
        for each in found:
            await each.connect()
        yield found


async def seconds_of(work: Awaitable[object]) -> float:
    begin = time.perf_counter()
    await work
    return time.perf_counter() - begin


def milliseconds(values: Sequence[float]) -> float:
    return statistics.median(values) * 1000


@contextmanager
def site_with(gpus: int) -> Iterator[Site]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Server(folder)
        installation = installation_of("simulator-2026", folder / "comfyui")
        site = Site(server, installation, folder)
        with ExitStack() as stack:
            stack.callback(server.kill)
            stack.callback(installation.close)
            stack.callback(site.close)
            site.begin(gpus)
            yield site


async def overhead(site: Site, jobs: int) -> None:
    """Empty jobs in pairs: one of ours, one posted directly; where all are idle."""
    ours, theirs, starts = [], [], []
    async with client_of(site) as client, direct_to(site) as direct:
        for number in range(WARM + jobs):
            theirs.append(await seconds_of(direct[0].run(site.work())))
            # A worker that saw a job of others takes none before it has looked again.
            begin = time.perf_counter()
            job = await client.submit(site.work())
            await client.ended[job]
            if number >= WARM:
                ours.append(time.perf_counter() - begin)
                starts.append(client.leased[job] - begin)
    direct_cost = milliseconds(theirs[WARM:])
    at_most("overhead per job over a direct call", milliseconds(ours) - direct_cost, 5, "ms",
            f", direct {direct_cost:.1f} ms")  # fmt: skip
    at_most("submit to lease on an idle pool", milliseconds(starts), 50, "ms")


@contextmanager
def gateway_of(site: Site) -> Iterator[str]:
    """The URL of a gateway."""
    gateway = Gateway(site.folder, site.url)
    try:
        yield gateway.url
    finally:
        gateway.end()


@contextmanager
def api_proxy(comfyui: str) -> Iterator[str]:
    """The URL of comfy-api-proxy before this instance."""
    port = free_ports(1)
    program = Path(sysconfig.get_path("scripts"), "comfy-api-proxy")
    command = [str(program), "--comfyui", comfyui, "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as proxy:
        try:
            until(lambda: _answers(f"{url}/api/v2/health"), 30, "comfy-api-proxy")
            yield url
        finally:
            proxy.kill()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except OSError:
        return False


async def by_api(session: aiohttp.ClientSession, url: str, workflow: Prompt) -> None:
    """A job by Comfy API v2, to its end: the client asks again and again, without a pause."""
    async with session.post(f"{url}/api/v2/jobs", json={"workflow": workflow}) as answer:
        assert answer.status == 201, await answer.text()
        job = (await answer.json())["id"]
    while True:
        async with session.get(f"{url}/api/v2/jobs/{job}") as answer:
            status = (await answer.json())["status"]
        # comfy-api-proxy says the last of a job that ends between its two questions to ComfyUI.
        if status not in ("queued", "running", "expired"):
            assert status == "succeeded", status
            return


async def beside_proxy(site: Site, gateway: str, proxy: str, jobs: int) -> None:
    """The same client before our gateway and before comfy-api-proxy, which keeps jobs in memory
    and has one instance, in turns on one instance."""
    taken: dict[str, list[float]] = {gateway: [], proxy: [], "": []}
    async with direct_to(site) as direct, aiohttp.ClientSession() as session:
        for _ in range(WARM + jobs):
            for url in (gateway, proxy):
                taken[url].append(await seconds_of(by_api(session, url, site.work())))
            taken[""].append(await seconds_of(direct[0].run(site.work())))
    ours, theirs, alone = (milliseconds(each[WARM:]) for each in taken.values())
    at_most("overhead per job by Comfy API v2", ours - alone, BY_API, "ms",
            f", comfy-api-proxy with one instance {theirs - alone:.1f} ms")  # fmt: skip


async def throughput(site: Site, jobs: int, seconds: float, share: float) -> None:
    """All instances busy: against posting the same number to each directly."""
    workflow = site.work(does=f"sleep {seconds}")
    watched = [psutil.Process(each.pid) for each in site.processes]
    async with client_of(site) as client, direct_to(site) as direct:

        async def posting(one: Direct) -> None:
            for _ in range(jobs // len(direct)):
                await one.run(workflow)

        alone = await seconds_of(asyncio.gather(*map(posting, direct)))
        await asyncio.gather(*(client.run(site.work()) for _ in direct))
        before = sum(sum(each.cpu_times()[:2]) for each in watched)
        begin = time.perf_counter()
        await asyncio.gather(*(client.run(workflow) for _ in range(jobs)))
        took = time.perf_counter() - begin
        cost = sum(sum(each.cpu_times()[:2]) for each in watched) - before
    at_least(
        f"{jobs} jobs of {seconds:g} s on {len(site.instances)} instances, of posting directly",
        alone / took, share, "", f", {cost / took:.2f} cores for scheduler and workers",
    )  # fmt: skip


async def submitting(site: Site, queued: int) -> None:
    """Many jobs of 50 kB wait: how fast they come in, and what they take of memory."""
    workflow = site.work()
    workflow["1"]["inputs"]["more"] = "x" * 50_000
    watched = [psutil.Process(site.server.pid), psutil.Process(site.schedulers[0].pid)]
    before = [each.memory_info().rss for each in watched]
    async with client_of(site) as client:
        await client.store.pause(True)
        await asyncio.sleep(2.5)
        slots = asyncio.Semaphore(64)

        async def one() -> None:
            async with slots:
                await client.submit(workflow)

        took = await seconds_of(asyncio.gather(*(one() for _ in range(queued))))
        at_least(f"submits per second of 50 kB, {queued}", queued / took, 1500)
        grown = [
            (each.memory_info().rss - was) / 1e6 for each, was in zip(watched, before, strict=True)
        ]
        for name, size in zip(("server", "scheduler"), grown, strict=True):
            at_most(f"memory of the {name} with {queued} waiting", size, 100, "MB above idle")


async def trouble(site: Site) -> None:
    """A worker is killed; then a whole machine is cut off: stopped, with its instance."""
    gate, other = site.folder / "gate", site.folder / "other"
    async with client_of(site) as client:
        job = await client.submit(site.work(gate))
        while not site.runs():
            await asyncio.sleep(0.01)
        gpu = await client.gpu_of(job)
        kill(site.workers[gpu])
        begin = time.perf_counter()
        site.worker(gpu)
        gate.touch()
        found = await client.ended[job]
        assert (found.state, found.attempt, site.runs()) == ("succeeded", 1, 1)
        took = time.perf_counter() - begin
        at_most("a killed worker's job has its result, run once", took, 10, "s")
        job = await client.submit(site.work(other))
        while site.runs() < 2:
            await asyncio.sleep(0.01)
        gpu = await client.gpu_of(job)
        for process in (site.workers[gpu], site.instances[gpu].process):
            process.send_signal(signal.SIGSTOP)
        begin = time.perf_counter()
        while site.runs() < 3:
            await asyncio.sleep(0.01)
        at_most("a cut-off machine's job runs elsewhere", time.perf_counter() - begin, 20, "s")
        other.touch()
        await client.ended[job]
        for process in (site.workers[gpu], site.instances[gpu].process):
            process.send_signal(signal.SIGCONT)


async def api(site: Site, url: str, rate: int, seconds: float) -> None:
    """Requests for a job at a constant rate, while jobs take half of the CPU."""
    taken: list[float] = []

    async def ask(session: aiohttp.ClientSession, job: str) -> None:
        begin = time.perf_counter()
        async with session.get(f"{url}/api/v2/jobs/{job}") as answer:
            assert answer.status == 200
            await answer.read()
        taken.append(time.perf_counter() - begin)

    async def working(session: aiohttp.ClientSession, until: float) -> None:
        """One job after the other, each half a core for 0.2 s and then a pause."""
        while time.perf_counter() < until:
            async with session.post(
                f"{url}/api/v2/jobs", json={"workflow": site.work(does="burn 0.2")}
            ) as answer:
                assert answer.status == 201, await answer.text()
            await asyncio.sleep(0.4)

    async with aiohttp.ClientSession() as session:
        async with session.post(f"{url}/api/v2/jobs", json={"workflow": site.work()}) as answer:
            job = (await answer.json())["id"]
        begin = time.perf_counter()
        workers = [asyncio.ensure_future(working(session, begin + seconds)) for _ in site.instances]
        asked = []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, begin + number / rate - time.perf_counter()))
            asked.append(asyncio.ensure_future(ask(session, job)))
        await asyncio.gather(*asked, *workers)
    taken.sort()
    p99 = taken[int(len(taken) * 0.99)] * 1000
    at_most(f"p99 of the API at {rate}/s", p99, 20, "ms", f", median {milliseconds(taken):.1f} ms")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--long", type=int, default=64)
    parser.add_argument("--short", type=int, default=400)
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    exit_on_signals()
    with site_with(1) as site:
        asyncio.run(overhead(site, given.jobs))
        with gateway_of(site) as gateway, api_proxy(site.instances[0].url) as proxy:
            asyncio.run(beside_proxy(site, gateway, proxy, given.jobs))
    with site_with(given.gpus) as site:
        asyncio.run(throughput(site, given.long, 1.0, 0.99))
        asyncio.run(throughput(site, given.short, 0.1, 0.96))
    with site_with(2) as site:
        asyncio.run(trouble(site))
        with gateway_of(site) as gateway:
            asyncio.run(api(site, gateway, given.rate, given.seconds))
    with site_with(1) as site:
        asyncio.run(submitting(site, given.queued))
    return conclude()


if __name__ == "__main__":
    sys.exit(main())
