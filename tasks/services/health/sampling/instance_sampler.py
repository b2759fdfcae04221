"""Samples one instance again and again, in a thread of its own: none waits for another."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from urllib.parse import quote

import psutil

from ....host.comfyui import (
    api,
    judge,
    load_result,
    machine_state,
    object_info,
    symptoms,
    warmup,
)
from ....host.comfyui.api import Health, Jobs
from ....host.comfyui.condition import Condition
from ....host.comfyui.judge import Observation
from ....host.downloads import model_files
from ....host.downloads.model_files import ModelState
from ....host.pm2.app_processes import Census, Found
from ....host.pm2.app_state import AppState
from ....host.system import usage
from ....host.system.log_once import Steady
from ....host.system.redaction import redact
from ..model.answers import Job, Point
from ..model.sample import Sample, differs
from ..model.settings import Instance, Settings
from . import progress_bar
from .pm2_state import Supervisor
from .trial_runner import TrialRunner

EVERY = 0.75
"""Seconds between two samples."""
SOON = 0.2
"""Seconds while it starts, so that it is ready here as soon as it is for `doit`."""
PATIENCE = (0.75, 2.0, 5.0, 15.0)
"""Seconds that it has for an answer, the last for all that follow. One that hangs is asked
less and less often, and the pending request is answered as soon as it continues."""
UNTAKEN = 5.0
"""Seconds after which a job that nothing works on shows that its worker thread is dead."""
JOBS_EVERY = 3.0
"""Seconds between two questions for its jobs, which it answers with all their prompts."""
MEASURE_EVERY = 5.0
KEPT = 120
"""Points of the history: ten minutes."""
CATALOGUE_EVERY = 60.0
"""Seconds until one that didn't list its node classes is asked again: half a megabyte, 70 ms."""
LISTING_EVERY = 30.0
"""Seconds between two questions for the models that it lists."""
FAILED = 100
"""Nodes that failed, at most so many."""


class InstanceSampler:
    """One instance; `sample` is the last one of it."""

    def __init__(
        self,
        instance: Instance,
        settings: Callable[[], Settings],
        census: Census,
        supervisor: Supervisor,
        news: Callable[[], None],
    ) -> None:
        self.instance = instance
        self._settings = settings
        self._census = census
        self._supervisor = supervisor
        self._news = news
        self._models: Mapping[str, ModelState] = {}
        self._stop = threading.Event()
        self.has_sampled = threading.Event()
        self._history: deque[Point] = deque(maxlen=KEPT)
        self._before = ""
        self._begin(None)
        self._trials = TrialRunner(instance, settings, lambda: self.sample)
        self.sample = Sample(time.monotonic(), self._gone())

    def stop(self) -> None:
        self._stop.set()
        self._trials.stop()

    def run(self) -> None:
        threading.Thread(target=self._trials.run, daemon=True).start()
        steady = Steady()
        while not self._stop.is_set():
            steady.attempt(self.step)
            self.has_sampled.set()
            seen = self.sample.seen
            starts = seen.state.app is not None and seen.answer.refused
            self._stop.wait(SOON if starts else EVERY)

    def step(self) -> None:
        """Sample once, and tell when there is news."""
        before = self.sample
        found = self._census.find(self.instance.name)
        if self._process != (found.process if found else None):
            if self._process is not None:
                ended = judge.not_running(self._state(None, None), self.instance.name)
                self._before = f"ended {time.strftime('%F %T')}: {ended.message}"
            self._begin(found)
        self.sample = self._observe(found) if found else self._missing()
        if differs(before, self.sample):
            self._news()

    def list_models(self, models: Mapping[str, ModelState]) -> None:
        """Which models it is asked about, at the next sample if they changed."""
        if models != self._models:
            self._models, self._listed = models, float("-inf")

    def _begin(self, found: Found | None) -> None:
        """Forget what was known of another process."""
        self._process: psutil.Process | None = found.process if found else None
        self._scheme = found.app.scheme if found else "http"
        self._over_time = symptoms.History()
        self._silent: float | None = None
        self._last_answer: Health | None = None
        self._classes: frozenset[str] | None = None
        self._failed: dict[str, str] | None = None
        self._listings: dict[str, Sequence[str]] = {}
        self._asked = self._catalogued = self._listed = self._measured = float("-inf")
        self._jobs: Jobs | None = None
        self._threads: frozenset[int] = frozenset()
        self._memory: int | None = None

    def _missing(self) -> Sample:
        self._point(None, None)
        history = tuple(self._history)
        return Sample(time.monotonic(), self._gone(), before=self._before, history=history)

    def _gone(self) -> Observation:
        why = f"{self.instance.name} doesn't run"
        answer = Health(False, why, refused=True, answered=False)
        return Observation(self.instance.name, self._state(None, None), answer)

    def _state(self, found: Found | None, memory: int | None) -> AppState:
        name = self.instance.name
        return self._supervisor.state(name, found, memory, self._settings().layout.log(name))

    def _observe(self, found: Found) -> Sample:
        settings, gpu = self._settings(), self.instance.gpu
        layout, pid, port = settings.layout, found.app.pid, found.app.port or self.instance.port
        answer = self._probe(pid, port)
        if answer.healthy:
            self._last_answer = answer
            self._ask_for_jobs(pid, port, answer.queue or 0)
            self._ask_for_more(found)
        self._measure(pid, answer.queue)
        symptom = self._symptom(pid)
        if self._last_answer and not answer.answered and not symptom:
            answer = self._last_answer
        noted, restarted = machine_state.watched(layout.watched(gpu), found.app)
        warms = settings.warmup is not None
        seen = Observation(
            name=self.instance.name,
            state=self._state(found, self._memory),
            answer=answer,
            symptom=symptom or noted,
            cold=warms and warmup.is_cold(layout, gpu, found.app),
            warmup=warmup.read(layout, gpu, found.app) if warms else None,
            canary=self._trials.canary,
            classes=self._classes,
            failed_nodes=self._failed or {},
            draining=layout.draining(gpu).exists(),
        )
        return Sample(
            at=time.monotonic(),
            seen=seen,
            silent=self._silent,
            before=restarted or self._before,
            job=self._job(),
            listed=dict(self._listings),
            history=tuple(self._history),
        )

    def _probe(self, pid: int, port: int) -> Health:
        """Ask, longer each time that no answer came; a busy one has done something meanwhile."""
        silences = 0
        if self._silent is not None:
            past = time.monotonic() - self._silent
            silences = max(1, sum(past >= sum(PATIENCE[: number + 1]) for number in range(3)))
        asked, before = time.monotonic(), usage.own_effort(pid)
        health = api.probe(self.instance.listen, port, PATIENCE[silences], scheme=self._scheme)
        after = usage.own_effort(pid)
        if health.answered or health.refused:
            self._silent = None
        elif self._silent is None:
            self._silent = asked
        took = time.monotonic() - asked
        self._works = (
            before is not None
            and after is not None
            and (after.waits or not symptoms.idles(before, after, took))
        )
        return health

    def _symptom(self, pid: int) -> Condition | None:
        """What is wrong, as only time tells."""
        now, settings = time.monotonic(), self._settings()
        measured = symptoms.Measurement(
            at=now,
            age=time.time() - (self._process.create_time() if self._process else 0.0),
            answered=True,
            effort=usage.own_effort(pid),
            jobs=self._jobs,
        )
        limits = symptoms.Limits(UNTAKEN, settings.job_timeout, settings.start_timeout)
        self._over_time, found = symptoms.follow(self._over_time, measured, limits)
        if self._silent is not None:
            began = time.time() - (now - self._silent)
            return symptoms.silence(began, time.time(), self._works)
        return found or self._dead_thread(pid, now)

    def _dead_thread(self, pid: int, now: float) -> Condition | None:
        """ComfyUI lists a job that ended its worker thread (sys.exit()) as running for ever."""
        if not self._jobs or not self._jobs.running:
            return None
        lost = self._threads - usage.threads(pid)
        idle = now - self._over_time.idle >= UNTAKEN
        return symptoms.dead_thread(self._jobs.running[0]) if lost and idle else None

    def _ask_for_jobs(self, pid: int, port: int, queue: int) -> None:
        now = time.monotonic()
        if not queue:
            self._jobs, self._threads, self._asked = Jobs(), usage.threads(pid), float("-inf")
        elif now - self._asked >= JOBS_EVERY:
            self._asked = now
            self._jobs = api.jobs(self.instance.listen, port, scheme=self._scheme) or self._jobs

    def _job(self) -> Job | None:
        if not self._jobs or not self._jobs.running:
            return None
        job = self._jobs.running[0]
        since = self._over_time.jobs.get(job, time.monotonic())
        bar = progress_bar.last(self._settings().layout.log(self.instance.name))
        return Job(
            id=job,
            seconds=round(time.monotonic() - since, 1),
            percent=bar.percent if bar else None,
            step=bar.step if bar else "",
        )

    def _ask_for_more(self, found: Found) -> None:
        """Ask for what takes longer, and seldom changes."""
        now, listen = time.monotonic(), self.instance.listen
        port = found.app.port or self.instance.port
        ask = partial(api.ask, listen, port, scheme=self._scheme)
        if self._failed is None:
            reports = self._settings().layout.reports(self.instance.gpu)
            failed = load_result.failed(reports, found.app.pid)
            self._failed = {name: redact(str(failed[name])) for name in list(failed)[:FAILED]}
        if self._classes is None and now - self._catalogued >= CATALOGUE_EVERY:
            self._catalogued = now
            layout, gpu = self._settings().layout, self.instance.gpu
            self._classes = object_info.classes(layout, gpu, found.app, self.instance.listen)
        if now - self._listed >= LISTING_EVERY:
            self._listed = now
            kinds = model_files.kinds(self._models, ask("/internal/folder_paths"))
            answers = {folder: ask(f"/models/{quote(kind)}") for folder, kind in kinds.items()}
            self._listings = {
                folder: [name for name in names if isinstance(name, str)]
                for folder, names in answers.items()
                if isinstance(names, list)
            }

    def _measure(self, pid: int, queue: int | None) -> None:
        if time.monotonic() - self._measured >= MEASURE_EVERY:
            self._memory = usage.resident(pid)
            self._point(self._memory, queue)

    def _point(self, memory: int | None, queue: int | None) -> None:
        now = time.monotonic()
        if now - self._measured >= MEASURE_EVERY:
            self._measured = now
            self._history.append(Point(at=round(time.time(), 1), memory=memory, queue=queue))
