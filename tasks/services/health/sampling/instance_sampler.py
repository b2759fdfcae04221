"""Samples one instance again and again, in a thread of its own: none waits for another."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from urllib.parse import quote

import psutil

from ....host.comfyui import (
    api,
    load_result,
    machine_state,
    node_classes,
    started_with,
    symptoms,
    warmup,
)
from ....host.comfyui.api import Jobs, ProbeResult
from ....host.comfyui.condition import Condition
from ....host.comfyui.judge import Observation
from ....host.comfyui.started_with import StartedWith
from ....host.downloads import model_files
from ....host.downloads.model_files import ModelState
from ....host.pm2 import endings
from ....host.pm2.app_processes import Census, Found
from ....host.pm2.app_state import AppState
from ....host.system import files, usage
from ....host.system.log_once import LogOnce
from ....host.system.redaction import redact
from ....host.system.stat_cache import while_unchanged
from ....spec.layout import Layout
from ..model.answers import Job, Point
from ..model.facts import Build, Sample, differs
from ..model.settings import Instance, Settings
from . import progress_bar
from .pm2_state import Supervisor
from .trial_runner import TrialRunner
from .workflow_check import WorkflowCheck

EVERY = 0.75
"""Seconds between two samples."""
SOON = 0.2
"""Seconds while it starts, so that it is ready here as soon as for `doit`."""
PROBE_TIMEOUTS = (0.75, 2.0, 5.0, 15.0)
"""Seconds for each successive unanswered probe, the last for all further ones. A hung instance is
asked less and less often, and the pending request is answered as soon as it continues."""
STUCK_JOB = 5.0
"""Seconds after which an idle process with a job counts as having a dead worker thread."""
JOBS_EVERY = 3.0
"""Seconds between two requests for its jobs, which include all prompts."""
MEASURE_EVERY = 5.0
KEPT = 120
"""Points of the history: ten minutes."""
CATALOGUE_EVERY = 60.0
"""Seconds until node classes that weren't listed are asked for again: half a megabyte, 70 ms."""
LISTING_EVERY = 30.0
"""Seconds between two requests for its models."""
LISTING_SOON = 0.5
"""Seconds until models that it didn't list are asked for again, doubled each time: ComfyUI may
answer from a listing that it made just before."""
MOST_FAILED = 100
"""Failed nodes that are shown."""

_classes = while_unchanged(node_classes.expected)
_failed = while_unchanged(load_result.failed_in_build)


class InstanceSampler:
    """Samples one instance; `sample` is the last sample."""

    def __init__(
        self,
        instance: Instance,
        settings: Callable[[], Settings],
        census: Census,
        supervisor: Supervisor,
        changed: Callable[[], None],
    ) -> None:
        self.instance = instance
        self._settings = settings
        self._census = census
        self._supervisor = supervisor
        self._changed = changed
        self._models: Mapping[str, ModelState] = {}
        self._listings: dict[str, Sequence[str]] = {}
        self._stop, self._wake = threading.Event(), threading.Event()
        self.has_sampled = threading.Event()
        self._history: deque[Point] = deque(maxlen=KEPT)
        self._previous: tuple[int, str] | None = None
        self._begin(None)
        self._trials = TrialRunner(instance, settings, lambda: self.sample)
        self.sample = Sample(time.monotonic(), self._not_running())

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        self._trials.stop()

    @property
    def at(self) -> float:
        """When the last sample began, by the monotonic clock."""
        return self.sample.at

    def hurry(self) -> None:
        """Sample now, and say so."""
        self._wake.set()

    def run(self) -> None:
        threading.Thread(target=self._trials.run, daemon=True).start()
        log_once, is_hurried = LogOnce(), False
        while not self._stop.is_set():
            log_once.attempt(self.step)
            self.has_sampled.set()
            if is_hurried:
                self._changed()
            observation = self.sample.observation
            starts = observation.state.app is not None and observation.answer.refused
            is_hurried = self._wake.wait(SOON if starts else EVERY)
            self._wake.clear()

    def step(self) -> None:
        """Sample once, and report a change."""
        previous, begin = self.sample, time.monotonic()
        found = self._census.find(self.instance.name)
        if self._process != (found.process if found else None):
            if self._process is not None:
                self._previous = (self._process.pid, time.strftime("%F %T"))
            self._begin(found)
        sample = self._observe(found) if found else self._sample_without_process()
        self.sample = replace(sample, at=begin)
        if differs(previous, self.sample):
            self._changed()

    def list_models(self, models: Mapping[str, ModelState]) -> None:
        """Set the models to ask for, at the next sample if they changed."""
        if models != self._models:
            self._models, self._models_asked_at = models, float("-inf")
            self._listing_pause = LISTING_SOON
            # Its last listing is older than these models.
            self._listings = {}

    def _begin(self, found: Found | None) -> None:
        """Reset what is known, for another process."""
        self._process: psutil.Process | None = found.process if found else None
        self._scheme = found.app.scheme if found else "http"
        self._started = started_with.of(found.app.pid) if found else StartedWith()
        self._listen = self._started.listen or self.instance.listen
        self._symptom_history = symptoms.History()
        self._silent: float | None = None
        self._last_answer: ProbeResult | None = None
        self._classes: frozenset[str] | None = None
        self._failed: dict[str, str] | None = None
        self._listings = {}
        self._listing_pause = LISTING_SOON
        self._jobs_asked_at = self._classes_asked_at = self._models_asked_at = self._measured_at = (
            float("-inf")
        )
        self._jobs: Jobs | None = None
        self._threads: frozenset[int] = frozenset()
        self._workflows = WorkflowCheck()
        self._memory: int | None = None

    def _sample_without_process(self) -> Sample:
        self._add_point(None, None)
        history = tuple(self._history)
        return Sample(
            time.monotonic(), self._not_running(), before=self._previous_end(), history=history
        )

    def _not_running(self) -> Observation:
        why = f"{self.instance.name} doesn't run"
        answer = ProbeResult(False, why, refused=True, answered=False)
        return Observation(self.instance.name, self._state(None, None), answer)

    def _previous_end(self) -> str:
        """When and why the previous process ended, as far as it is known by now."""
        if self._previous is None:
            return ""
        pid, at = self._previous
        return f"ended {at}: {endings.of(self._settings().layout, self.instance.name, pid)}"

    def _state(self, found: Found | None, memory: int | None) -> AppState:
        return self._supervisor.state(self.instance.name, found, memory)

    def _observe(self, found: Found) -> Sample:
        settings, gpu = self._settings(), self.instance.gpu
        layout, pid, port = settings.layout, found.app.pid, found.app.port or self.instance.port
        answer = self._probe(pid, port)
        if answer.healthy:
            self._last_answer = answer
            self._ask_jobs(pid, port, answer.queue or 0)
            self._ask_details(found)
        self._measure(pid, answer.queue)
        symptom = self._symptom(pid)
        if self._last_answer and not answer.answered and not symptom:
            answer = self._last_answer
        noted, restarted = machine_state.watched(layout.watched(gpu), found.app)
        warms = settings.warmup is not None
        observation = Observation(
            name=self.instance.name,
            state=self._state(found, self._memory),
            answer=answer,
            symptom=symptom or noted,
            cold=warms and warmup.is_cold(layout, gpu, found.app),
            warmup=warmup.outcome(layout, gpu, found.app) if warms else None,
            canary=self._trials.canary,
            classes=self._classes,
            failed_nodes=self._failed or {},
            workflows=self._workflows.states(settings.workflows, self._classes),
            draining=layout.draining(gpu).exists(),
        )
        return Sample(
            at=time.monotonic(),
            observation=observation,
            build=self._build(layout),
            passed=files.read_receipt(layout.healthy(gpu)).get("pid") == pid,
            silent=self._silent,
            before=restarted or self._previous_end(),
            job=self._job(),
            listed=dict(self._listings),
            history=tuple(self._history),
        )

    def _build(self, layout: Layout) -> Build:
        """The build of the generation that it was started on, which may not be the current one."""
        generation = self._started.generation or layout.generation
        receipt = load_result.receipt_of(generation)
        return Build(
            classes=_classes(generation, receipt),
            failed=_failed(generation, receipt),
            selected=self._started.nodes,
        )

    def _probe(self, pid: int, port: int) -> ProbeResult:
        """Probe, with a longer time-out after each silence; notes whether the process was busy."""
        silences = 0
        if self._silent is not None:
            past = time.monotonic() - self._silent
            silences = max(1, sum(past >= sum(PROBE_TIMEOUTS[: number + 1]) for number in range(3)))
        begin, before = time.monotonic(), usage.own_effort(pid)
        health = api.probe(self._listen, port, PROBE_TIMEOUTS[silences], scheme=self._scheme)
        after = usage.own_effort(pid)
        if health.answered or health.refused:
            self._silent = None
        elif self._silent is None:
            self._silent = begin
        took = time.monotonic() - begin
        self._is_busy = (
            before is not None
            and after is not None
            and (after.waits or not symptoms.idles(before, after, took))
        )
        return health

    def _symptom(self, pid: int) -> Condition | None:
        """What successive measurements show to be wrong."""
        now, settings = time.monotonic(), self._settings()
        measured = symptoms.Measurement(
            at=now,
            age=time.time() - (self._process.create_time() if self._process else 0.0),
            answered=True,
            effort=usage.own_effort(pid),
            jobs=self._jobs,
        )
        limits = symptoms.Limits(STUCK_JOB, settings.job_timeout, settings.start_timeout)
        self._symptom_history, found = symptoms.follow(self._symptom_history, measured, limits)
        if self._silent is not None:
            began = time.time() - (now - self._silent)
            return symptoms.silence(began, time.time(), self._is_busy)
        return found or self._dead_thread(pid, now)

    def _dead_thread(self, pid: int, now: float) -> Condition | None:
        """ComfyUI lists a job that ended its worker thread (by sys.exit()) as running for ever."""
        if not self._jobs or not self._jobs.running:
            return None
        lost = self._threads - usage.threads(pid)
        idle = now - self._symptom_history.idle >= STUCK_JOB
        return symptoms.dead_thread(self._jobs.running[0]) if lost and idle else None

    def _ask_jobs(self, pid: int, port: int, queue: int) -> None:
        now = time.monotonic()
        if not queue:
            self._jobs, self._threads, self._jobs_asked_at = (
                Jobs(),
                usage.threads(pid),
                float("-inf"),
            )
        elif now - self._jobs_asked_at >= JOBS_EVERY:
            self._jobs_asked_at = now
            self._jobs = api.jobs(self._listen, port, scheme=self._scheme) or self._jobs

    def _job(self) -> Job | None:
        if not self._jobs or not self._jobs.running:
            return None
        job = self._jobs.running[0]
        since = self._symptom_history.jobs.get(job, time.monotonic())
        bar = progress_bar.last(self._settings().layout.log(self.instance.name))
        return Job(
            id=job,
            seconds=round(time.monotonic() - since, 1),
            percent=bar.percent if bar else None,
            step=bar.step if bar else "",
        )

    def _ask_details(self, found: Found) -> None:
        """Ask for what takes longer and seldom changes."""
        now, listen = time.monotonic(), self._listen
        port = found.app.port or self.instance.port
        ask = partial(api.ask, listen, port, scheme=self._scheme)
        if self._failed is None:
            reports = self._settings().layout.reports(self.instance.gpu)
            failed = load_result.failed(reports, found.app.pid)
            self._failed = {name: redact(str(failed[name])) for name in list(failed)[:MOST_FAILED]}
        if self._classes is None and now - self._classes_asked_at >= CATALOGUE_EVERY:
            self._classes_asked_at = now
            layout, gpu = self._settings().layout, self.instance.gpu
            self._classes = node_classes.listed(layout, gpu, found.app, listen)
        self._workflows.ask(self._settings().workflows, self._classes, ask)
        if now - self._models_asked_at >= self._listing_pause:
            self._models_asked_at = now
            kinds = model_files.kinds(self._models, ask("/internal/folder_paths"))
            answers = {folder: ask(f"/models/{quote(kind)}") for folder, kind in kinds.items()}
            self._listings = {
                folder: [name for name in names if isinstance(name, str)]
                for folder, names in answers.items()
                if isinstance(names, list)
            }
            lacks = bool(model_files.unlisted(self._models, self._listings))
            pause = self._listing_pause * 2 if lacks else LISTING_EVERY
            self._listing_pause = min(pause, LISTING_EVERY)

    def _measure(self, pid: int, queue: int | None) -> None:
        if time.monotonic() - self._measured_at >= MEASURE_EVERY:
            self._memory = usage.resident(pid)
            self._add_point(self._memory, queue)

    def _add_point(self, memory: int | None, queue: int | None) -> None:
        now = time.monotonic()
        if now - self._measured_at >= MEASURE_EVERY:
            self._measured_at = now
            self._history.append(Point(at=round(time.time(), 1), memory=memory, queue=queue))
