"""What Prometheus scrapes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import cast

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from ....host.comfyui.condition import HEALTHY
from ..conditions.answer_board import Answers
from ..model.answers import Installation, InstancesHealth, JobQueue, ModelsHealth, Overview

PREFIX = "comfy_machine"


class Collector:
    """The last answers as metrics; 1 is true, 0 is false."""

    def __init__(self, answers: Callable[[], Answers]) -> None:
        self._answers = answers

    def collect(self) -> Iterator[Metric]:
        answers = self._answers()
        overview = cast(Overview, answers.overview.verdict)
        yield _one("healthy", "The machine is healthy.", overview.status in HEALTHY)
        conditions = _gauge("condition", "A condition of the machine is true.", "type", "reason")
        for each in overview.conditions:
            conditions.add_metric([each.type, each.reason], each.status == "True")
        yield conditions
        layers = _gauge("layer", "A layer of the machine is well.", "layer")
        for name, well in overview.layers.items():
            layers.add_metric([name], well)
        yield layers
        workers = _gauge("worker_running", "A worker runs.", "worker")
        instances = cast(InstancesHealth, answers.instances.verdict).instances.values()
        names = {instance.name for instance in instances}
        for service in overview.services:
            if service.name not in names:
                workers.add_metric([service.name], service.running)
        yield workers
        yield from _instances(answers)
        yield from _installation(cast(Installation, answers.installation.verdict))
        models = _gauge("model_ok", "A declared model is present and verified.", "target")
        for model in cast(ModelsHealth, answers.models.verdict).models:
            models.add_metric([model.target], model.ok)
        yield models
        if overview.jobs is not None:
            yield from _jobs(overview.jobs)


def _instances(answers: Answers) -> Iterator[Metric]:
    instances = cast(InstancesHealth, answers.instances.verdict).instances
    healthy = _gauge("instance_healthy", "An instance is healthy.", "gpu")
    layers = _gauge("instance_layer", "A layer of an instance is well.", "gpu", "layer")
    memory = _gauge("instance_memory_bytes", "Resident memory, children included.", "gpu")
    uptime = _gauge("instance_uptime_seconds", "Since its process began.", "gpu")
    queue = _gauge("instance_queue_jobs", "Jobs, the running one included.", "gpu")
    age = _gauge("instance_sample_age_seconds", "Age of what is known of it.", "gpu")
    used = _gauge("gpu_memory_used_bytes", "Memory in use on its GPU, by all processes.", "gpu")
    total = _gauge("gpu_memory_bytes", "Memory of its GPU.", "gpu")
    ready = _gauge("workflow_ready", "An instance has what a workflow needs.", "gpu", "workflow")
    restarts = CounterMetricFamily(
        f"{PREFIX}_instance_restarts", "Restarts by PM2.", labels=["gpu"]
    )
    now = time.monotonic()
    for gpu, instance in instances.items():
        healthy.add_metric([gpu], instance.status in HEALTHY)
        for name in ("installed", "running", "functional", "models"):
            layers.add_metric([gpu, name], getattr(instance.layers, name).ok)
        age.add_metric([gpu], now - (answers.by_gpu[int(gpu)].sampled or now))
        for workflow in instance.workflows:
            if workflow.ok is not None:
                ready.add_metric([gpu, workflow.name], workflow.ok)
        running, card = instance.layers.running, instance.card
        for family, value in (
            (memory, running.memory),
            (uptime, running.uptime),
            (queue, instance.layers.functional.queue),
            (restarts, running.restarts),
            (used, card.memory_used if card else None),
            (total, card.memory_total if card else None),
        ):
            if value is not None:
                family.add_metric([gpu], value)
    yield from (healthy, layers, memory, uptime, restarts, queue, age, used, total, ready)


def _jobs(queue: JobQueue) -> Iterator[Metric]:
    """Nothing where the gateway doesn't tell."""
    oldest = time.time() - queue.oldest if queue.oldest else 0.0
    for name, says, value in (
        ("waiting", "Jobs that wait.", queue.waiting),
        ("running", "Jobs that run.", queue.running),
        ("oldest_waiting_seconds", "Since the oldest that waits was submitted.", max(0.0, oldest)),
        ("dead", "Jobs that ended their instance or worker each time.", queue.dead),
    ):
        if queue.ok and value is not None:
            yield _one(f"jobs_{name}", says, value)


def _installation(installation: Installation) -> Iterator[Metric]:
    nodes = _gauge("node_ok", "A custom node is installed and imports.", "node")
    for node in installation.nodes:
        nodes.add_metric([node.name], node.ok)
    yield nodes
    run = installation.run
    running = run is not None and run.state == "running"
    yield _one("run_running", "A run is in progress.", running)
    if run is not None:
        yield _one("run_succeeded", "The last run succeeded, or is in progress.",
                   run.state in ("running", "succeeded"))  # fmt: skip
        if running and run.percent is not None:
            yield _one("run_progress_ratio", "Progress of the run.", run.percent / 100)
        if running and run.seconds_left is not None:
            yield _one("run_left_seconds", "Seconds that the run still takes.", run.seconds_left)


def _gauge(name: str, doc: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", doc, labels=labels)


def _one(name: str, doc: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", doc, value=value)


class Metrics:
    """The text that is scraped, rendered once per set of answers."""

    def __init__(self, answers: Callable[[], Answers]) -> None:
        self._answers = answers
        self._registry = CollectorRegistry()
        self._registry.register(Collector(answers))
        ProcessCollector(registry=self._registry)
        self._rendered: tuple[float, bytes] = (float("-inf"), b"")

    def text(self) -> bytes:
        at = self._answers().at
        if self._rendered[0] != at:
            self._rendered = (at, generate_latest(self._registry))
        return self._rendered[1]
