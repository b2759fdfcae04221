"""What Prometheus scrapes, read by its own parser."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from comfy_machine.host.downloads.model_files import ModelState
from comfy_machine.host.system.run_journal import Journal
from comfy_machine.services.health.conditions.answer_board import Answers, Since
from comfy_machine.services.health.conditions.composition import compose
from comfy_machine.services.health.model.answers import Card, JobQueue, Layer, Part, one_line
from comfy_machine.services.health.model.facts import Facts, Sample
from comfy_machine.services.health.model.settings import Instance, Worker
from comfy_machine.services.health.web.metrics import Metrics
from tests.services import moments as m
from tests.services import samples

TWO = m.settings(
    instances=(m.GPU0, Instance(1, "comfyui-gpu1", "127.0.0.1", 8189, whole=True)),
    workers=(Worker("fetch-gpu0", 0), Worker("comfyui-gpus-gpu1", 1)),
)
ODD = 'a "quoted"\\back\nslash-é.safetensors'
Labels = dict[str, str]


def scraped(answers: Answers) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = Metrics(lambda: answers).text().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for each in family.samples:
            key = each.name.removeprefix("comfy_machine_"), frozenset(each.labels.items())
            assert key not in found, "said twice"
            found[key] = each.value
    return found


def answers(facts: Facts, *seen: Sample) -> Answers:
    return compose(facts, dict(enumerate(seen)), Since(), lambda body: body)


def of(values: dict[Any, float], name: str, **labels: str) -> float | None:
    return values.get((name, frozenset(labels.items())))


def test_every_instance_and_every_layer_of_it_is_told() -> None:
    running = replace(m.state(m.app(age=100), {"restart_time": 3}), memory=5000)
    down = m.sample(state=m.state(None, {"restart_time": 7}), answer=m.REFUSES)
    facts = m.facts(
        settings=TWO, cards={1: Card(name="x", uuid="y", memory_used=1, memory_total=9)}
    )
    values = scraped(
        answers(facts, m.sample(state=running, answer=replace(m.ANSWERS, queue=2)), down)
    )

    assert of(values, "healthy") == 1, "one of two serves"
    assert of(values, "condition", type="Degraded", reason="Exited") == 1
    for gpu, well in (("0", 1), ("1", 0)):
        assert of(values, "instance_healthy", gpu=gpu) == well
        for layer in ("installed", "running", "functional", "models"):
            told = of(values, "instance_layer", gpu=gpu, layer=layer)
            assert told == (well if layer in ("running", "functional") else 1)
            assert of(values, "layer", layer=layer) == (layer in ("installed", "models"))
        age = of(values, "instance_sample_age_seconds", gpu=gpu)
        assert age is not None
        assert 0 <= age < 60
    assert of(values, "instance_memory_bytes", gpu="0") == 5000
    assert of(values, "instance_queue_jobs", gpu="0") == 2
    assert (of(values, "instance_uptime_seconds", gpu="0") or 0) >= 100
    for name in ("instance_memory_bytes", "instance_queue_jobs", "instance_uptime_seconds"):
        assert of(values, name, gpu="1") is None, "nobody knows"
    assert of(values, "instance_restarts_total", gpu="0") == 3
    assert of(values, "instance_restarts_total", gpu="1") == 7
    assert of(values, "gpu_memory_used_bytes", gpu="1") == 1
    assert of(values, "gpu_memory_bytes", gpu="1") == 9
    assert of(values, "worker_running", worker="fetch-gpu0") == 1
    assert of(values, "worker_running", worker="comfyui-gpus-gpu1") == 0
    assert of(values, "worker_running", worker="comfyui-gpu0") is None, "it is an instance"
    assert of(values, "process_open_fds") or of(values, "process_resident_memory_bytes")


def test_labels_are_escaped() -> None:
    model = ModelState(ODD, False, "it isn't there", optional=True)
    installed = replace(m.installed(), nodes=[Part(name=ODD, ok=False, reason=ODD)])
    values = scraped(answers(m.facts(models=m.models(model), installed=installed), m.sample()))
    assert of(values, "model_ok", target=one_line(ODD)) == 0
    assert of(values, "node_ok", node=one_line(ODD)) == 0
    assert of(values, "healthy") == 1, "degraded is well enough"


def test_the_run_is_told_while_it_is_on_and_when_it_is_over() -> None:
    def told(run: Journal | None) -> list[float | None]:
        values = scraped(answers(m.facts(run=run), m.sample()))
        names = ("run_running", "run_succeeded", "run_progress_ratio", "run_left_seconds")
        return [of(values, name) for name in names]

    on = replace(m.INSTALLS, percent=25.0, seconds_left=40.0)
    assert told(None) == [0, None, None, None]
    assert told(on) == [1, 1, 0.25, 40]
    assert told(m.INSTALLS) == [1, 1, None, None]
    assert told(m.SUCCEEDED) == [0, 1, None, None]
    assert told(m.FAILED) == told(m.INTERRUPTED) == [0, 0, None, None]


def test_the_jobs_are_told_where_the_gateway_tells_them() -> None:
    names = ("jobs_waiting", "jobs_running", "jobs_oldest_waiting_seconds", "jobs_dead")

    def told(queue: JobQueue | None) -> list[float | None]:
        values = scraped(answers(m.facts(queue=queue), m.sample()))
        return [of(values, name) for name in names]

    waiting, running, oldest, dead = told(samples.queue(oldest=samples.ago(72)))
    assert (waiting, running, dead) == (3, 2, 1)
    assert 72 <= (oldest or 0) < 132
    assert told(samples.queue(waiting=0, oldest=None, running=0, dead=0)) == [0, 0, 0, 0]
    assert told(JobQueue(ok=False, reason="the gateway doesn't answer")) == [None] * 4
    assert told(None) == [None] * 4


def test_a_machine_without_anything_has_metrics_too() -> None:
    nothing = m.facts(
        settings=m.settings(instances=(), workers=(), nodes=()), workers={}, models=None,
        installed=replace(m.installed("nothing"), layer=Layer(ok=False, reason="nothing")),
    )  # fmt: skip
    values = scraped(answers(nothing))
    assert of(values, "healthy") == 0
    assert of(values, "layer", layer="installed") == 0


def test_the_text_is_made_once_for_each_set_of_answers() -> None:
    posted = [answers(m.facts(), m.sample())]
    metrics = Metrics(lambda: posted[-1])
    first = metrics.text()
    assert metrics.text() is first
    posted.append(answers(m.facts(), m.sample(state=m.state(None))))
    assert metrics.text() != first
