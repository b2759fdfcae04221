"""What might be seen of a machine at one moment, as the health server holds it in memory."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from comfy_machine.host.comfyui import symptoms
from comfy_machine.host.comfyui.api import ProbeResult
from comfy_machine.host.comfyui.judge import Observation
from comfy_machine.host.comfyui.own_jobs import Trial
from comfy_machine.host.downloads.model_files import ModelState
from comfy_machine.host.generations.installed import WantedNode
from comfy_machine.host.pm2 import app_state, apps
from comfy_machine.host.pm2.app_state import AppState
from comfy_machine.host.pm2.endings import Ending
from comfy_machine.host.pm2.log_evidence import Blame
from comfy_machine.host.system.run_journal import Journal, Task
from comfy_machine.services.health.model.answers import Layer
from comfy_machine.services.health.model.facts import Build, Facts, Installed, Sample
from comfy_machine.services.health.model.settings import Instance, Settings, Worker
from comfy_machine.spec.layout import Layout

NOWHERE = Path("/nonexistent")
RAISED = Ending(
    "exited", "it exited with code 1", Blame("comfyui-gpu0.log", 2, "ValueError: no luck")
)
DOWN = Ending("stopped", "stopped by doit down")
GPU0 = Instance(0, "comfyui-gpu0", "127.0.0.1", 8188, whole=False)
ANSWERS = ProbeResult(True, queue=0)
REFUSES = ProbeResult(False, "nothing answers on port 8188", refused=True, answered=False)
SILENT = ProbeResult(False, "no answer from port 8188 within 2 s", answered=False)
WRONG = ProbeResult(False, "it answers with code 500")
MODEL = ModelState("checkpoints/a.safetensors", True, present=True, verified=True)
NO_MODEL = ModelState("checkpoints/a.safetensors", False, "it isn't there")
NO_OPTION = ModelState("loras/b.safetensors", False, "it isn't there", optional=True)
HANGS = symptoms.symptom("Hanging", "it hangs")
TOO_LARGE = symptoms.symptom("MemoryLimit", "over its memory")
BUILD = Build({"needed": ["Here"], "extra": ["Here"]})
NODES = (WantedNode("needed", url="u"), WantedNode("extra", url="u", optional=True))


def settings(**changes: Any) -> Settings:
    """One instance with a worker, and two custom nodes of which one is optional."""
    usual: dict[str, Any] = {
        "workspace": NOWHERE,
        "machine_file": NOWHERE,
        "lock_file": NOWHERE,
        "listen": "127.0.0.1",
        "port": 9090,
        "enabled": True,
        "pinned": False,
        "instances": (GPU0,),
        "workers": (Worker("fetch-gpu0", 0),),
        "comfyui": WantedNode("ComfyUI"),
        "nodes": NODES,
        "selected": None,
        "models": (),
        "models_folder": NOWHERE,
        "store": NOWHERE,
        "restarts": False,
        "start_timeout": 60.0,
        "job_timeout": 3600.0,
        "warmup": None,
        "canary": None,
        "canary_every": 300.0,
    }
    return Settings(**usual | changes)


def app(name: str = GPU0.name, *, supervised: bool = True, age: float = 5.0) -> apps.App:
    return apps.App(name, 4100, "f", supervised, time.time() - age, 8188)


def state(
    found: apps.App | None, pm2: dict[str, Any] | None = None, ending: Ending | None = None
) -> AppState:
    return replace(app_state.of(found, None, pm2, Layout(NOWHERE), GPU0.name), ending=ending)


def sample(**changes: Any) -> Sample:
    """One that is well, but for the changes."""
    well: dict[str, Any] = {
        "name": GPU0.name, "state": state(app()), "answer": ANSWERS, "classes": frozenset({"Here"}),
    }  # fmt: skip
    own: dict[str, Any] = {"at": time.monotonic(), "build": BUILD}
    own |= {name: changes.pop(name) for name in Sample.__dataclass_fields__ if name in changes}
    return Sample(observation=Observation(**well | changes), **own)


def trial(*, ok: bool, reason: str = "", refused: bool = False) -> Trial:
    return Trial(ok, 1.0, 1.0, reason, refused)


def facts(**changes: Any) -> Facts:
    """A machine on which all is well, but for the changes."""
    running = {"fetch-gpu0": state(app("fetch-gpu0"))}
    well: dict[str, Any] = {
        "settings": settings(),
        "installed": installed(),
        "models": {},
        "workers": running,
    }
    return Facts(**well | changes)


def installed(reason: str = "", *, degraded: tuple[str, ...] = ()) -> Installed:
    """What is on disk; with a reason it isn't what should be."""
    return Installed(
        Layer(ok=not reason, reason=reason),
        generation="abc",
        degraded=degraded,
    )


def models(*states: ModelState) -> dict[str, ModelState]:
    return {state.target: state for state in states}


def run(state: Any, *tasks: Task) -> Journal:
    return Journal(
        pid=77, command="up", state=state, began=time.time(), seconds=1, seconds_left=None,
        percent=None, tasks=tasks,
    )  # fmt: skip


def task(name: str, state: Any, reason: str = "") -> Task:
    return Task(name, "", state=state, reason=reason)


FAILED = run("failed", task("nodes:x", "failed", "no such commit"))
INTERRUPTED = run("interrupted", task("models", "running"))
INSTALLS = run(
    "running",
    task("environment", "running"),
    task("instances:start", "waiting"),
    task("workers:fetch-gpu0", "waiting"),
)
FETCHES = run("running", task("models", "running"))
SUCCEEDED = run("succeeded", task("up", "done"))
