"""A place where jobs run: a NATS server, schedulers, instances of the simulator, their workers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import nats
from nats.aio.client import Client
from nats.errors import Error

from comfy_machine.services.jobs import worker_protocol
from comfy_machine.services.jobs.job_store import Store, reach
from comfy_machine.services.jobs.partner_keys import Keys
from comfy_machine.services.jobs.record import ENDED, Record
from comfy_machine.services.jobs.worker_protocol import Order
from comfy_machine.spec.layout import Layout
from tests.contract.client import Prompt, picture, preview, save, until
from tests.contract.installation import Installation
from tests.contract.installation import Server as Instance
from tests.rig import PROJECT
from tests.services.jobs.conftest import Server

T = TypeVar("T")
MACHINE = "here"
PATIENCE = 60.0
"""Seconds until what must happen has happened, on a busy machine."""

WORK = textwrap.dedent("""
    import os, pathlib, time
    import comfy.model_management, comfy.utils
    import folder_paths
    from PIL import Image

    class OutOfMemoryError(RuntimeError):
        pass

    class Work:
        '''Notes each run; then waits for the file `gate`, or does what `does` says.'''

        SHOWN = Image.frombytes("RGB", (400, 400), os.urandom(3 * 400 * 400))

        INPUT_TYPES = classmethod(lambda cls: {"required": {
            "notes": ("STRING", {}), "gate": ("STRING", {}), "does": ("STRING", {}),
        }, "hidden": {"key": "API_KEY_COMFY_ORG"}})
        IS_CHANGED = classmethod(lambda cls, **_: float("nan"))
        RETURN_TYPES = ()
        FUNCTION = "run"
        OUTPUT_NODE = True

        def run(self, notes, gate, does, key=None):
            with open(notes, "a") as file:
                file.write(f"run {key or ''}\\n")
            if does == "fail":
                raise ValueError("it can't be done")
            if does == "memory":
                raise OutOfMemoryError("too little")
            if does.startswith("burn "):
                until = time.process_time() + float(does[5:])
                while time.process_time() < until:
                    sum(range(1000))
            if does.startswith("sleep "):
                time.sleep(float(does[6:]))
            while gate and not pathlib.Path(gate).exists():
                comfy.model_management.throw_exception_if_processing_interrupted()
                if does == "show":
                    bar = comfy.utils.ProgressBar(2)
                    bar.update_absolute(1, 2, ("PNG", self.SHOWN, None))
                time.sleep(0.01)
            return {"ui": {"text": ["done"]}}

    class Read:
        '''Says what is in a file of the inputs.'''

        INPUT_TYPES = classmethod(lambda cls: {"required": {"file": ("STRING", {})}})
        IS_CHANGED = classmethod(lambda cls, **_: float("nan"))
        RETURN_TYPES = ()
        FUNCTION = "run"
        OUTPUT_NODE = True

        def run(self, file):
            path = folder_paths.get_annotated_filepath(file)
            return {"ui": {"text": [pathlib.Path(path).read_text()], "named": [file]}}

    NODE_CLASS_MAPPINGS = {"Work": Work, "Read": Read}
""")


class Site:
    """Starts and ends its parts; everything is real but ComfyUI itself."""

    def __init__(
        self, server: Server, installation: Installation, folder: Path, machine: str = MACHINE,
        env: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        """`env` is for its programs."""
        self.server, self.folder, self.machine = server, folder, machine
        self._env = env or {}
        self.layout = Layout(folder / "ws")
        self._installation = installation
        self.processes: list[subprocess.Popen[bytes]] = []
        self.workers: dict[int, subprocess.Popen[bytes]] = {}
        self.schedulers: list[subprocess.Popen[bytes]] = []
        self._loop = asyncio.new_event_loop()
        self._client: Client | None = None
        self._store: Store | None = None
        self.instances: dict[int, Instance] = {}
        self.replicas = 1
        self.settings(attempts=3)

    # What runs.

    def settings(self, **changed: object) -> None:
        about = {"workspace": str(self.layout.workspace), "machine": self.machine,
                 "url": self.server.url, **changed}  # fmt: skip
        self.folder.joinpath("settings.json").write_text(json.dumps(about), encoding="utf-8")

    def instance(
        self, gpu: int = 0, *, pretends_gpu: bool = False, inputs: Path | None = None
    ) -> Instance:
        """Start an instance; `inputs` are those of another machine."""
        inputs = inputs or self.layout.inputs
        base = self._installation.base(f"gpu{gpu}-{uuid4().hex[:6]}")
        base.add_node("work", WORK)
        for path in (self.layout.outputs(gpu), inputs, self.layout.instance(gpu)):
            path.mkdir(parents=True, exist_ok=True)
        launched = self._installation.launch(
            base, "--output-directory", str(self.layout.outputs(gpu)),
            "--input-directory", str(inputs),
            "--temp-directory", str(self.layout.instance(gpu)),
            cpu=not pretends_gpu, env={"SIMULATE_GPU": "1"} if pretends_gpu else None,
        )  # fmt: skip
        self.instances[gpu] = self._installation.wait(launched)
        return launched

    @property
    def url(self) -> str:
        return self.server.url

    def worker(self, gpu: int = 0, stop_timeout: float = 600) -> subprocess.Popen[bytes]:
        """Start the worker of an instance."""
        self.workers[gpu] = self._start(
            "instance_worker",
            {
                "COMFYUI_URL": self.instances[gpu].url,
                "JOBS_INSTANCE": f"comfyui-gpu{gpu}",
                "JOBS_GPU": str(gpu),
                "WORKER_STOP_TIMEOUT": str(stop_timeout),
            },
        )
        return self.workers[gpu]

    def scheduler(self) -> subprocess.Popen[bytes]:
        self.schedulers.append(self._start("scheduler", {}))
        return self.schedulers[-1]

    def begin(self, instances: int = 1) -> None:
        """Start a scheduler, and instances with their workers."""
        self.scheduler()
        for gpu in range(instances):
            self.instance(gpu)
            self.worker(gpu)

    def _start(self, module: str, env: dict[str, str]) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"comfy_machine.services.jobs.{module}",
                   str(self.folder / "settings.json")]  # fmt: skip
        with self.folder.joinpath(f"{module}.log").open("ab") as log:
            started = subprocess.Popen(
                command, cwd=PROJECT, env={**os.environ, **self._env, **env}, stdout=log, stderr=log
            )
        self.processes.append(started)
        return started

    @staticmethod
    def command_of(process: subprocess.Popen[bytes]) -> str:
        return Path(f"/proc/{process.pid}/cmdline").read_text().replace("\0", " ")

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
        if self._client:
            self._loop.run_until_complete(self._client.close())
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                self._loop.run_until_complete(asyncio.wait(left))
        self._loop.close()

    # What is asked.

    def call(self, asked: Callable[[Store], Awaitable[T]]) -> T:
        """Ask the store."""

        async def calling() -> T:
            if self._store is None:
                self._client = await nats.connect(
                    self.url.split(","), max_reconnect_attempts=-1, reconnect_time_wait=0.1,
                    ping_interval=1, max_outstanding_pings=2,
                )  # fmt: skip
                stream = self._client.jetstream(timeout=5)
                self._store = await reach(stream, self.replicas)
            return await asked(self._store)

        return self._loop.run_until_complete(calling())

    def patiently(self, asked: Callable[[Store], Awaitable[T]]) -> T:
        """Ask a server that restarts: what was on its way is lost."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.call(asked)
            except Error:
                assert time.monotonic() < deadline
                time.sleep(0.1)

    def publish(self, subject: str, message: bytes) -> None:
        async def publishing(_: Store) -> None:
            assert self._client
            await self._client.publish(subject, message)
            await self._client.flush()

        self.call(publishing)

    def submit(self, workflow: Prompt, keys: Keys | None = None, **about: object) -> str:
        job = str(uuid4())
        record = Record(id=job, submitted=time.time(), **about)  # type: ignore[arg-type]
        assert self.call(lambda store: store.create(record, json.dumps(workflow).encode(), keys))
        return job

    def cancel(self, job: str) -> None:
        """Ask for the end of a job that runs, as the gateway does."""

        async def cancelling(store: Store) -> None:
            stored = await store.read(job)
            assert stored
            await store.replace(stored, stored.record.changed(cancel=True))
            assert self._client
            order = Order(what="cancel", job=job).model_dump_json().encode()
            subject = worker_protocol.worker(stored.record.instance)
            await self._client.request(subject, order, timeout=5)

        self.call(cancelling)

    def read(self, job: str) -> Record:
        """The job, as soon as the server tells."""

        async def reading(store: Store) -> Record:
            stored = await store.read(job)
            assert stored is not None
            return stored.record

        return self.patiently(reading)

    def until(self, job: str, *states: str) -> Record:
        """Wait until the job is in one of these states."""

        def found() -> Record | None:
            record = self.read(job)
            return record if record.state in states else None

        try:
            record = until(found, PATIENCE, f"{job} to be {' or '.join(states)}")
        except AssertionError:
            raise AssertionError(f"{self.read(job)}\n{self.logs()}") from None
        assert record
        return record

    def ends(self, job: str) -> Record:
        return self.until(job, *ENDED)

    def logs(self) -> str:
        return "\n".join(
            file.read_text(encoding="utf-8", errors="replace") for file in self.folder.glob("*.log")
        )

    # Jobs.

    @property
    def notes(self) -> Path:
        return self.folder / "notes"

    def runs(self, notes: Path | None = None) -> int:
        """How often a job that notes there has run."""
        file = notes or self.notes
        return len(file.read_text().splitlines()) if file.exists() else 0

    def until_run(self, times: int = 1) -> None:
        until(lambda: self.runs() >= times, PATIENCE, f"{times} runs\n{self.logs()}")

    def work(self, gate: Path | None = None, does: str = "", notes: Path | None = None) -> Prompt:
        inputs = {"notes": str(notes or self.notes), "gate": str(gate or ""), "does": does}
        return {"1": {"class_type": "Work", "inputs": inputs}}

    @staticmethod
    def reading(file: str) -> Prompt:
        """A job that says what is in an input."""
        return {"1": {"class_type": "Read", "inputs": {"file": file}}}

    @staticmethod
    def pictures() -> Prompt:
        """A job that saves one picture and previews it."""
        return {"1": picture(), "2": save("1", "a/picture"), "3": preview("1")}


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def ends(process: subprocess.Popen[bytes], number: signal.Signals, seconds: float) -> int:
    process.send_signal(number)
    return process.wait(seconds)


def all_end(site: Site, jobs: Sequence[str]) -> list[Record]:
    return [site.ends(job) for job in jobs]
