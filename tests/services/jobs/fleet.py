"""Machines on one queue, each in a network namespace of its own: a scheduler, an instance with its
worker, and a gateway, with a workspace of its own."""

from __future__ import annotations

import signal
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from comfy_machine.services.jobs import leadership
from comfy_machine.services.jobs.job_store import Store
from comfy_machine.services.jobs.record import Record
from tests.contract.client import Prompt, until
from tests.contract.conftest import installation_of
from tests.services.gateway.conftest import Gateway
from tests.services.jobs.conftest import Server
from tests.services.jobs.namespaces import Network, Place
from tests.services.jobs.site import PATIENCE, Site, kill

PORT, ROUTES = 4222, 6222
BUSY = 429
"""The status with which a gateway asks to come again."""


class Servers(Server):
    """NATS at one place, or a cluster with a server at each of three."""

    def __init__(self, folder: Path, places: Sequence[Place]) -> None:
        self.places = places
        self._each: dict[int, Server] = {}
        routes = ", ".join(f"nats://{each.address}:{ROUTES}" for each in places)
        for each in places:
            home = folder / f"server{each.number}"
            home.mkdir()
            cluster = (
                f"server_name: {self.name(each)}\n"
                f"cluster {{ name: jobs, listen: {each.address}:{ROUTES}, routes: [{routes}] }}\n"
            )
            with each.inside():
                self._each[each.number] = Server(
                    home, cluster if len(places) > 1 else "", each.address, PORT
                )

    @property
    def replicas(self) -> int:
        return len(self.places)

    @property
    def url(self) -> str:
        return ",".join(each.url for each in self._each.values())

    def name(self, place: Place) -> str:
        """What the one there is called among the others."""
        return f"s{place.number}"

    def url_at(self, place: Place) -> str:
        return self._each[place.number].url

    def at(self, place: Place) -> Server | None:
        """The one there; None: there is none."""
        return self._each.get(place.number)

    def kill(self) -> None:
        for each in self._each.values():
            each.kill()


class Machine:
    """One of them, as it is left when it ends: its workspace stays."""

    def __init__(self, place: Place, folder: Path, name: str, servers: Servers) -> None:
        folder.mkdir()
        self.place, self.name = place, name
        self._servers = servers
        self._installation = installation_of("simulator-2026", folder / "comfyui")
        self.site = Site(servers, self._installation, folder, name)
        self.site.settings(replicas=servers.replicas)

    def start(self, stack: ExitStack) -> None:
        """Start its programs, which end with `stack`; its gateway is waited for in `ready`."""
        stack.callback(self._installation.close)
        stack.callback(self.site.close)
        with self.inside():
            self.site.begin()
            about: dict[str, Any] = {"machine": self.name, "replicas": self._servers.replicas}
            self.gateway = Gateway(self.site.folder, self._servers.url, wait=False, **about)
        stack.callback(self.gateway.end, signal.SIGKILL)

    def ready(self) -> None:
        """Return when its gateway knows all jobs and its own instance."""
        until(self.gateway.ready.exists, PATIENCE, "the gateway")
        until((self.site.folder / "settings.ready.json").exists, PATIENCE, "the scheduler")
        until(lambda: self.name in self.devices(), PATIENCE, "its instance")

    def inside(self) -> AbstractContextManager[None]:
        return self.place.inside()

    def devices(self) -> str:
        """What its gateway says of the instances of all machines."""
        return str(self.ask("GET", "/system_stats").text)

    def ask(self, method: str, path: str, **about: Any) -> Any:
        """Ask its gateway."""
        with self.inside():
            return self.gateway.ask(method, path, **about)

    def runs(self) -> list[str]:
        """The jobs that its instance runs."""
        with self.inside():
            return self.site.instances[0].running()

    def leave(self) -> None:
        """End in order, with its server if it has one."""
        self.gateway.end()
        for process in (*self.site.workers.values(), *self.site.schedulers):
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0, self.site.logs()
        self.site.instances[0].stop(signal.SIGTERM)
        if server := self._servers.at(self.place):
            server.end()

    def die(self) -> None:
        """All its programs are killed, the worker first, as it would tell of the others' end."""
        for process in (*self.site.processes, self.site.instances[0].process):
            kill(process)
        self.gateway.end(signal.SIGKILL)
        if server := self._servers.at(self.place):
            server.kill()


@dataclass(frozen=True)
class Job:
    """One that was sent; `notes` has a line for each time it began."""

    id: str
    notes: Path
    gate: Path

    def let_go(self) -> None:
        """Let it end where it runs, and where it will."""
        self.gate.touch()

    @property
    def begun(self) -> int:
        return len(self.notes.read_text().splitlines()) if self.notes.exists() else 0


class Fleet:
    """All of them; their records are read at a place of its own, where a test is too."""

    def __init__(self, net: Network, servers: Servers, folder: Path, stack: ExitStack) -> None:
        self._net, self._servers, self._folder, self._stack = net, servers, folder, stack
        self._jobs = 0
        reading = folder / "reading"
        reading.mkdir()
        self._reader = Site(servers, installation_of("simulator-2026", reading), reading)
        self._reader.replicas = servers.replicas
        stack.callback(self._reader.close)
        self.machines: dict[str, Machine] = {}

    def add(self, *names: str) -> None:
        """Start further machines, at the places of servers as long as there are any."""
        new = []
        for name in names:
            number = len(self.machines)
            has_server = self._servers.replicas > 1 and number < self._servers.replicas
            place = self._servers.places[number] if has_server else self._net.place()
            machine = Machine(place, self._folder / name, name, self._servers)
            machine.start(self._stack)
            self.machines[name] = machine
            new.append(machine)
        for machine in new:
            machine.ready()

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def send(
        self, to: str, does: str = "", *, held: bool = False, more: Prompt | None = None
    ) -> Job:
        """Send a job through a machine's gateway, again while it says that the store is away.
        `held`: it runs until it is let go. `more` are further nodes."""
        self._jobs += 1
        job = Job("", self._folder / f"notes{self._jobs}", self._folder / f"gate{self._jobs}")
        work = self._reader.work(job.gate if held else None, does, job.notes)
        workflow: Prompt = {"work": work["1"], **(more or {})}
        key = {"Idempotency-Key": job.notes.name}

        def taken() -> Any:
            answer = self[to].ask("POST", "/api/v2/jobs", json={"workflow": workflow}, headers=key)
            return None if answer.status_code == BUSY else answer

        answer = until(taken, PATIENCE, f"{to} to take a job")
        assert answer.status_code == 201, answer.text
        return replace(job, id=answer.json()["id"])

    def read(self, job: Job) -> Record:
        return self._reader.read(job.id)

    def machine_of(self, job: Job) -> str:
        """Where it runs or ran last."""
        return self.read(job).instance.partition("_")[0]

    def ends(self, *jobs: Job) -> list[Record]:
        """The jobs once each has ended."""
        try:
            return [self._reader.ends(job.id) for job in jobs]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._logs()}") from None

    def until_begun(self, jobs: Collection[Job], times: int = 1) -> None:
        """Return when each of these has begun so many times."""
        try:
            until(lambda: all(job.begun >= times for job in jobs), PATIENCE, f"{times} runs")
        except AssertionError as error:
            told = "\n".join(str(self.read(job)) for job in jobs)
            raise AssertionError(f"{error}\n{told}\n{self._logs()}") from None

    def leader(self) -> str:
        """The machine of the scheduler that works."""

        async def reading(store: Store) -> str:
            entry = await store.control.get(leadership.KEY)
            return (entry.value or b"").decode().split()[0]

        return self._reader.call(reading)

    def _logs(self) -> str:
        return "\n".join(f"{each.name}: {each.site.logs()}" for each in self.machines.values())
