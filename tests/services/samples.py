"""What the health server says of some machines."""

from __future__ import annotations

import math
import time
from typing import Any

from comfy_machine.host.comfyui.condition import Health
from comfy_machine.services.health.model import answers as a

Topics = dict[str, a.Verdict]
LAYERS = ("installed", "running", "functional", "models")
COMMIT = "4f3e2d1c0b9a8f7e6d5c4b3a2918070605040302"
GIB = 1 << 30


def ago(seconds: float) -> float:
    return time.time() - seconds


def instance(gpu: int, status: Health = "healthy", **fields: Any) -> a.InstanceHealth:
    """One that is healthy but for `fields`; `layers` may be a part of them."""
    layers = {
        "installed": a.Layer(ok=True),
        "running": a.Running(
            ok=True, pid=4100 + gpu, uptime=11_520, restarts=0, memory=4 * 10**9 + gpu * 10**8
        ),
        "functional": a.Functional(ok=True, queue=gpu % 3, job=_job(gpu) if gpu % 3 else None),
        "models": a.Listed(ok=True),
    } | fields.pop("layers", {})
    return a.InstanceHealth(
        **{
            "status": status,
            "code": "Unspecified",
            "since": ago(11_520),
            "age": 0.4,
            "name": f"comfyui-gpu{gpu}",
            "gpu": gpu,
            "port": 8188 + gpu,
            "layers": a.Layers(**layers),
            "card": a.Card(
                name="NVIDIA H100 80GB HBM3",
                uuid=f"GPU-{gpu}",
                memory_used=(11 + 4 * gpu) * GIB,
                memory_total=80 * GIB,
            ),
            "workers": [a.Service(name=f"worker-gpu{gpu}", running=True, pid=5100 + gpu)],
            "history": history(gpu),
            **fields,
        }
    )


def _job(gpu: int) -> a.Job:
    return a.Job(
        id=f"{gpu}a64c1b2-7a0d-4f1e-9d5b-1c2d3e4f5a6b",
        seconds=12.0 + gpu,
        percent=35.0 + gpu * 7,
        step="KSampler",
    )


def history(gpu: int) -> list[a.Point]:
    return [
        a.Point(
            at=ago(600 - 10 * n),
            memory=None if 20 < n < 24 else int(4e9 + 3e8 * math.sin((n + 9 * gpu) / 7)),
            queue=None if 20 < n < 24 else (n * (gpu + 2) // 9) % 4,
        )
        for n in range(61)
    ]


def sick(gpu: int, **fields: Any) -> a.InstanceHealth:
    """Its worker thread died and a node could not be imported."""
    reason = "the job 9f1c has been at the front of the queue for 312 s and nothing works on it"
    return instance(
        gpu,
        "unhealthy",
        **{
            "since": ago(312),
            "reason": reason,
            "advice": f"doit restart comfyui-gpu{gpu}",
            "layers": {
                "functional": a.Functional(
                    ok=False,
                    reason=reason,
                    queue=7,
                    failed_nodes={
                        "ComfyUI-Impact-Pack": "doesn't import: ImportError: no module named cv2"
                    },
                    missing_nodes={"was-node-suite": ["BLIP Analyze", "CLIPSeg"]},
                    warmup=a.Trial(ok=True, at=ago(900), seconds=14.2),
                    canary=a.Trial(ok=False, at=ago(60), reason="no answer within 60 s"),
                ),
                "models": a.Listed(
                    ok=False,
                    reason="1 of 4 is listed but can't be loaded",
                    wrong={"checkpoints/xl.safetensors": "listed, but the link leads nowhere"},
                ),
            },
            "workflows": [
                a.Workflow(name="portrait", ok=True),
                a.Workflow(name="later", ok=None, optional=True),
                a.Workflow(
                    name="video", ok=False, reason="node 7 is of class Gone, which it lacks"
                ),
            ],
            "workers": [
                a.Service(
                    name=f"worker-gpu{gpu}",
                    running=False,
                    waits_for=[f"comfyui-gpu{gpu}"],
                    reason="it is unhealthy",
                )
            ],
            "log": [
                *(f"[INFO] step {n} of 40" for n in range(30)),
                "!!! Exception during processing !!!",
                "RuntimeError: CUDA error: device-side assert triggered",
            ],
            **fields,
        },
    )


def part(name: str, **fields: Any) -> a.Part:
    return a.Part(
        **{
            "name": name,
            "ok": True,
            "wanted": COMMIT,
            "commit": COMMIT,
            "imported": True,
            **fields,
        }
    )


def model(target: str, **fields: Any) -> a.Model:
    known = {"ok": True, "present": True, "verified": True, "size": 4_265_380_512}
    return a.Model(**{"target": target, "listed": {"0": True, "1": True}, **known, **fields})


def machine(
    status: Health,
    instances: list[a.InstanceHealth],
    *,
    reason: str = "",
    advice: str = "",
    run: a.Run | None = None,
    nodes: list[a.Part] | None = None,
    models: list[a.Model] | None = None,
    installed: a.Layer | None = None,
    services: list[a.Service] | None = None,
    packages: a.Packages | None = None,
) -> Topics:
    verdict: dict[str, Any] = {
        "status": status,
        "code": "Unspecified",
        "since": ago(312 if reason else 11_520),
        "reason": reason,
        "advice": advice,
    }
    installed = installed or a.Layer(ok=True)
    nodes = NODES if nodes is None else nodes
    models = MODELS if models is None else models
    layers: Any = {
        layer: instances != [] and all(getattr(one.layers, layer).ok for one in instances)
        for layer in LAYERS
    }
    return {
        "overview": a.Overview(
            **verdict,
            age=0.4,
            layers=layers | {"installed": installed.ok},
            instances={str(one.gpu): a.Verdict(**_verdict(one)) for one in instances},
            services=services or [],
            run=run and run.model_copy(update={"tasks": []}),
        ),
        "installation": a.Installation(
            **verdict,
            installed=installed,
            generation="b1946ac92492d234" if installed.ok else None,
            comfyui=part("ComfyUI"),
            nodes=nodes,
            packages=packages or a.Packages(ok=True, wanted=187, installed=187),
            run=run,
        ),
        "instances": a.InstancesHealth(
            **verdict, age=0.4, instances={str(one.gpu): one for one in instances}
        ),
        "models": a.ModelsHealth(**verdict, age=0.4, models=models),
    }


def _verdict(one: a.Verdict) -> dict[str, Any]:
    return {name: getattr(one, name) for name in a.Verdict.model_fields}


NODES = [part("ComfyUI-Impact-Pack"), part("was-node-suite-comfyui"), part("ComfyUI-Manager")]
MODELS = [model("checkpoints/sd15.safetensors"), model("vae/ae.safetensors", size=334_643_268)]


def healthy(gpus: int = 8) -> Topics:
    return machine("healthy", [instance(gpu) for gpu in range(gpus)], run=run("succeeded", []))


PICTURE = "/health/comfyui/pictures/0a64c1b2-7a0d-4f1e-9d5b-1c2d3e4f5a6b.0123456789abcdef01234567"
PREVIEW = "/health/comfyui/previews/1b64c1b2-7a0d-4f1e-9d5b-1c2d3e4f5a6b?at=1.5"
THUMBNAIL = PICTURE.replace("pictures", "thumbnails")


def queue(**fields: Any) -> a.JobQueue:
    """Three wait, two run, one is dead, and some have ended."""
    error = a.QueueError(
        type="ValueError", message="no such sampler", node="7", node_type="KSampler"
    )
    ends: dict[str, Any] = {"instance": "comfyui-gpu1", "ended": ago(75), "seconds": 8.25}
    return a.JobQueue(
        **{
            "ok": True,
            "advice": "doit jobs --failed",
            "paused": False,
            "waiting": 3,
            "oldest": ago(72),
            "running": 2,
            "dead": 1,
            "stuck": [
                a.QueueStuck(why="no instance has node class X", jobs=2, id=job(7), since=ago(72)),
            ],
            "runs": [
                a.QueuedRun(id=job(1), instance="comfyui-gpu0", owner="owner", since=ago(14),
                            progress=0.42, node="7", preview=PREVIEW),
                a.QueuedRun(id=job(2), instance="comfyui-gpu1", owner="owner", since=ago(2)),
            ],
            "ended": [
                a.QueueEnd(id=job(3), status="succeeded", picture=PICTURE, thumbnail=THUMBNAIL,
                           **ends),
                a.QueueEnd(id=job(4), status="failed", error=error, **ends),
                a.QueueEnd(id=job(5), status="canceled", **ends),
                a.QueueEnd(id=job(6), status="succeeded", **ends),
            ],
            **fields,
        }
    )  # fmt: skip


def job(number: int) -> str:
    return f"{number}b64c1b2-7a0d-4f1e-9d5b-1c2d3e4f5a6b"


def with_jobs(topics: Topics, **fields: Any) -> Topics:
    """The same machine, with jobs."""
    overview = topics["overview"].model_copy(update={"jobs": queue(**fields)})
    return topics | {"overview": overview}


CRASHING = instance(
    3,
    "crash loop",
    reason="it exited 6 times within 2 min",
    advice="doit logs comfyui-gpu3",
    layers={
        "running": a.Running(ok=False, reason="no process", restarts=6),
        "functional": a.Functional(ok=False, reason="nothing listens on port 8191"),
    },
    log=["Traceback (most recent call last):", "torch.OutOfMemoryError: CUDA out of memory"],
)


def progressing() -> Topics:
    """It serves, while a run brings a model; another model and a custom node failed to come."""
    about: dict[str, Any] = {"since": ago(75), "observed": "d1"}
    topics = machine("degraded", [instance(0)], reason="custom node x: it is left out")
    found = [
        a.MachineCondition(
            type="Available", status="True", health="healthy", reason="Healthy", **about
        ),
        a.MachineCondition(
            type="Progressing", status="True", health="progressing", reason="ModelMissing",
            message="the run brings checkpoints/xl.safetensors", advice="wait", **about,
        ),
        a.MachineCondition(
            type="Degraded", status="True", health="degraded", reason="OptionalPartMissing",
            message="custom node x: it is left out", advice="run doit", **about,
        ),
    ]  # fmt: skip
    return topics | {"overview": topics["overview"].model_copy(update={"conditions": found})}


def unhealthy(**fields: Any) -> Topics:
    """GPU 1 is sick, a node could not be imported, a model is damaged."""
    return machine(
        "unhealthy",
        [instance(0), sick(1), instance(2), CRASHING],
        reason="comfyui-gpu1 and comfyui-gpu3 don't serve",
        advice="doit restart comfyui-gpu1; look at doit logs comfyui-gpu3",
        installed=a.Layer(ok=False, reason="ComfyUI-Broken could not be imported"),
        nodes=[
            *NODES,
            part(
                "ComfyUI-Broken", ok=False, imported=False, reason="ImportError: no module cv2"
            ),
            part(
                "Optional-Pack", ok=False, optional=True, commit=None, imported=None,
                reason="could not be cloned: connection refused",
            ),
        ],
        models=[
            *MODELS,
            model(
                "checkpoints/xl.safetensors",
                ok=False,
                verified=False,
                listed={"0": True, "1": False, "2": None},
                reason="its sha256 differs from the lock's",
            ),
        ],
        **fields,
    )  # fmt: skip


def run(state: Any, tasks: list[a.Task], **fields: Any) -> a.Run:
    done = sum(task.state in ("done", "up to date") for task in tasks)
    return a.Run(
        **{
            "pid": 3912,
            "command": "up",
            "state": state,
            "began": ago(134),
            "seconds": 134,
            "done": done,
            "total": len(tasks),
            "tasks": tasks,
            **fields,
        }
    )


def task(name: str, state: Any, **fields: Any) -> a.Task:
    return a.Task(name=name, state=state, **fields)


FINISHED = [
    task("directories", "up to date", doc="shared folders are there", seconds=0.1),
    task("source", "done", doc="ComfyUI at its commit", seconds=14.2),
    task("nodes:ComfyUI-Impact-Pack", "done", doc="at its commit", seconds=3.9),
]
WAITING = [
    task(name, "waiting", doc="to be done")
    for name in ("generation", "validation", "links", "pm2:gpu0", "instances", "health:gpu0")
]
RUNNING = [
    task(
        "nodes:was-node-suite-comfyui", "running", doc="at its commit", seconds=8.1,
        percent=62.4, detail="receiving objects",
    ),
    task(
        "environment", "running", doc="the Python environment", seconds=71.0,
        percent=34.0, detail="64 of 187 packages",
    ),
    task(
        "models:checkpoints/sd15.safetensors", "running", doc="downloaded and verified",
        seconds=71.0, percent=28.1, detail="1.2 of 4.3 GB",
    ),
    task("supervisor", "running", doc="PM2, from npm", seconds=2.0),
]  # fmt: skip
FAILED = [
    task(
        "nodes:ComfyUI-Broken", "failed", doc="at its commit", seconds=6.0,
        reason="could not be cloned: the repository answers 404. Is its url right?",
        log="/workspace/.machine/logs/nodes-ComfyUI-Broken.log",
    )
]  # fmt: skip


def installing(percent: float = 41.7) -> Topics:
    on = run(
        "running", [*FINISHED, *RUNNING, *WAITING], percent=percent, seconds_left=187.0
    )  # fmt: skip
    return machine(
        "installing",
        [],
        reason="doit up is running: 3 of 13 tasks are done",
        run=on,
        installed=a.Layer(ok=False, reason="the environment isn't made yet"),
        packages=a.Packages(ok=False, wanted=187, installed=64),
        nodes=[
            part("ComfyUI-Impact-Pack", imported=None),
            part("was-node-suite-comfyui", ok=False, commit=None, imported=None),
        ],
        models=[
            model(
                "checkpoints/sd15.safetensors",
                ok=False,
                present=False,
                verified=False,
                size=None,
                listed={},
                reason="not downloaded yet",
            )
        ],
    )


def broken_off(state: Any) -> Topics:
    """A run that failed, or that was interrupted."""
    held = [task(one.name, "held back", doc=one.doc) for one in WAITING]
    tasks = {"failed": [*FINISHED, *FAILED, *held], "interrupted": [*FINISHED, *RUNNING, *WAITING]}[
        state
    ]
    return machine(
        state,
        [],
        reason={"failed": "nodes:ComfyUI-Broken failed", "interrupted": "doit was killed"}[state],
        advice="doit",
        run=run(state, tasks),
        installed=a.Layer(ok=False, reason="there is no generation"),
    )


def disabled() -> Topics:
    return machine("disabled", [], reason="ENABLE_COMFYUI is false", nodes=[], models=[])
