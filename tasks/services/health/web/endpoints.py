"""The endpoints. All but the page are documented at /openapi.json."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Annotated, Any, cast

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.security import HTTPBearer
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException

from ...waking import woken
from ..conditions.answer_board import Answer, Answers
from ..model.answers import (
    Installation,
    InstanceHealth,
    InstancesHealth,
    JobQueue,
    ModelsHealth,
    Overview,
    Refusal,
    Verdict,
)
from ..sampling import job_pictures
from ..sampling.gateway_link import Silent
from ..sampling.job_pictures import Picture
from ..sampling.sampler import Sampler
from . import page
from .guard import Guard, refusal
from .metrics import Metrics

LONGEST_WAIT = 600
"""Seconds that a client may ask to wait."""
FRESH_WITHIN = 0.5
"""Seconds to wait for answers that are known to be outdated."""
FOLLOWERS = 64
"""Clients that may follow the events at the same time."""
EVENTS_EVERY = 1.0
"""Seconds between two events of one kind."""
METRICS = "text/plain; version=1.0.0; charset=utf-8"

PICTURE_WITHIN = 0.5
"""Seconds in which a picture must be there."""
PICTURE = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "private, max-age=86400, immutable",
}
"""The headers of a picture, which never changes."""
PREVIEW = PICTURE | {"Cache-Control": "no-store"}

TOKEN = Depends(HTTPBearer(auto_error=False, description="health.token, where there is one."))
"""For the OpenAPI document; Guard checks the token."""
REFUSALS = (401, 403, 422)
"""Status codes of refusals that any endpoint may give."""

Wait = Annotated[
    float, Query(ge=0, le=LONGEST_WAIT, description="Seconds to wait until it is healthy.")
]
Asset = Annotated[str, Path(description="As `jobs` names it.")]
Job = Annotated[str, Path(description="The id of a job that runs.")]
Pick = Callable[[Answers], Answer | None]


def make(sampler: Sampler, token: str, ready: Callable[[], None]) -> Guard:
    """The application behind its guard; it calls `ready` when it begins to answer."""
    return Guard(application(sampler, ready), token)


def application(sampler: Sampler, ready: Callable[[], None]) -> FastAPI:
    """The application, which has the OpenAPI document."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        sampler.board.attach(asyncio.get_running_loop())
        sampler.start()
        ready()
        yield
        sampler.stop()

    app = FastAPI(
        title="comfy-machine",
        description="Health of a ComfyUI machine: 200 when healthy, 503 when not. Read-only.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    _add_health(app, sampler)
    _add_probes(app, sampler)
    _add_events(app, sampler)
    _add_pictures(app, sampler)
    _add_page(app)
    _add_refusals(app)
    return app


def _responses(model: type[Verdict], *refusals: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI description of an endpoint's answers."""
    models = {200: model, 503: model} | dict.fromkeys(refusals, Refusal)
    return {code: {"model": each} for code, each in models.items()}


def _refused(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI description of refusals, for endpoints whose answers aren't JSON."""
    schema = {"$ref": f"#/components/schemas/{Refusal.__name__}"}
    content = {"application/json": {"schema": schema}}
    return {code: {"content": content, "description": "Refusal"} for code in codes}


def _route(
    app: FastAPI,
    path: str,
    endpoint: Callable[..., Any],
    kind: type[Response],
    responses: dict[int | str, dict[str, Any]],
    summary: str,
) -> None:
    """Add an endpoint for GET and HEAD. Only GET is documented: an operation id must be unique."""
    app.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route(
        path, endpoint, methods=["GET"], response_class=kind, responses=responses, summary=summary,
        dependencies=[TOKEN] if 401 in responses else [],
    )  # fmt: skip


def _add_health(app: FastAPI, sampler: Sampler) -> None:
    board = sampler.board

    async def answer_with(request: Request, pick: Pick, wait: float) -> Response:
        is_disconnected = request.is_disconnected
        current = board.answers
        if await _shows_a_past_run(sampler):
            await board.wait(lambda answers: answers is not current, FRESH_WITHIN, is_disconnected)
        if board.answers.seen < (needed := sampler.needed()):
            await board.wait(lambda answers: answers.seen >= needed, FRESH_WITHIN, is_disconnected)
        if wait:
            await board.wait(
                lambda answers: (it := pick(answers)) is None or it.healthy, wait, is_disconnected
            )
        answer = pick(board.answers)
        if answer is None:
            gpus = ", ".join(map(str, board.answers.by_gpu)) or "none"
            return refusal(404, "this GPU isn't configured", f"configured are: {gpus}")
        return Response(answer.body, answer.code, media_type="application/json")

    def add(
        path: str,
        model: type[Verdict],
        summary: str,
        pick: Pick,
        refusals: Sequence[int] = REFUSALS,
    ) -> None:
        async def endpoint(request: Request, wait: Wait = 0) -> Response:
            return await answer_with(request, pick, wait)

        _route(app, path, endpoint, JSONResponse, _responses(model, *refusals), summary)

    add("/health/comfyui", Overview, "The whole machine", lambda a: a.overview)
    add("/health/comfyui/installation", Installation, "What is installed, and the run that does so",
        lambda a: a.installation)  # fmt: skip
    add("/health/comfyui/instances", InstancesHealth, "All instances", lambda a: a.instances)
    add("/health/comfyui/models", ModelsHealth, "All declared models", lambda a: a.models)
    add("/readyz", Verdict, "Some instance takes jobs", lambda a: a.ready, [422])

    async def instance(
        request: Request, gpu: Annotated[int, Path(ge=0, description="Its number.")], wait: Wait = 0
    ) -> Response:
        return await answer_with(request, lambda answers: answers.by_gpu.get(gpu), wait)

    responses = _responses(InstanceHealth, 404, *REFUSALS)
    path = "/health/comfyui/instances/{gpu}"
    _route(app, path, instance, JSONResponse, responses, "The instance of one GPU")


async def _shows_a_past_run(sampler: Sampler) -> bool:
    if not sampler.sees_run:
        return False
    # In a thread: if the volume hangs, other clients don't wait.
    check = asyncio.to_thread(sampler.shows_a_past_run)
    with contextlib.suppress(asyncio.TimeoutError):
        return await asyncio.wait_for(check, FRESH_WITHIN)
    return False


def _add_probes(app: FastAPI, sampler: Sampler) -> None:
    metrics, began = Metrics(lambda: sampler.board.answers), round(time.time(), 1)

    async def livez() -> Response:
        if sampler.alive:
            verdict = Verdict(status="healthy", code="Healthy", since=began)
        else:
            since = round(time.time() - (time.monotonic() - sampler.board.answers.at), 1)
            verdict = Verdict(status="unhealthy", code="AnswersOld", since=since,
                              reason="its answers are old",
                              advice=f"kill {os.getpid()}: PM2 restarts it")  # fmt: skip
        code = 200 if sampler.alive else 503
        return Response(verdict.model_dump_json(), code, media_type="application/json")

    async def scrape() -> Response:
        return Response(metrics.text(), media_type=METRICS)

    _route(app, "/livez", livez, JSONResponse, _responses(Verdict), "This server is healthy")
    _route(app, "/metrics", scrape, PlainTextResponse, _refused(401, 403), "For Prometheus")


def _add_events(app: FastAPI, sampler: Sampler) -> None:
    board, followers = sampler.board, set[object]()

    async def place() -> AsyncIterator[None]:
        """Take a place before the first event, so that no more clients are let in meanwhile."""
        if len(followers) >= FOLLOWERS:
            raise HTTPException(503, f"{FOLLOWERS} clients already follow the events")
        me = object()
        followers.add(me)
        try:
            yield
        finally:
            followers.discard(me)

    @app.get("/health/comfyui/events", response_class=EventSourceResponse,
             dependencies=[Depends(place), TOKEN],
             responses=_refused(401, 403, 503),
             summary="All answers, as they change")  # fmt: skip
    async def events() -> AsyncIterator[ServerSentEvent]:
        sent = dict[str, bytes]()
        while not board.ended.is_set():
            for name, answer in _streams(board.answers).items():
                if sent.get(name) != answer.rest:
                    sent[name] = answer.rest
                    yield ServerSentEvent(event=name, raw_data=answer.body.decode())
            await woken(board.ended, EVENTS_EVERY)


def _streams(answers: Answers) -> dict[str, Answer]:
    return {
        "overview": answers.overview,
        "installation": answers.installation,
        "instances": answers.instances,
        "models": answers.models,
    }


def _add_pictures(app: FastAPI, sampler: Sampler) -> None:
    def queue() -> JobQueue:
        known = cast(Overview, sampler.board.answers.overview.verdict).jobs
        return known or JobQueue(ok=False)

    async def answer(path: str, headers: dict[str, str]) -> Response:
        """The picture at this path of the gateway."""
        try:
            found = await _within(PICTURE_WITHIN, sampler.pictures.get(path))
        except asyncio.TimeoutError:
            return refusal(503, "the gateway doesn't give the picture", "ask again later")
        except Silent as silent:
            return refusal(503, str(silent), "ask again later")
        return Response(found.content, media_type=found.content_type, headers=headers)

    async def picture(asset: Asset) -> Response:
        if asset not in _shown(queue()):
            return _no_picture("job that ended lately has this picture")
        return await answer(job_pictures.CONTENT.format(asset=asset), PICTURE)

    async def thumbnail(asset: Asset) -> Response:
        if asset not in _shown(queue()):
            return _no_picture("job that ended lately has this picture")
        return await answer(job_pictures.SMALLER.format(asset=asset), PICTURE)

    async def preview(job: Job) -> Response:
        found = next((each.preview for each in queue().runs if each.id == job), "")
        if not found:
            return _no_picture("job that runs and showed a picture has this id")
        at = found.rpartition("?")[2]
        return await answer(f"{job_pictures.SHOWN.format(job=job)}?{at}", PREVIEW)

    content = {"image/*": {"schema": {"type": "string", "format": "binary"}}}
    responses: dict[int | str, dict[str, Any]] = {200: {"content": content}}
    responses |= _refused(401, 403, 404, 503)
    for path, endpoint, summary in (
        (f"{job_pictures.PICTURES}{{asset}}", picture, "The first picture of a job that ended"),
        (f"{job_pictures.THUMBNAILS}{{asset}}", thumbnail, "A smaller form of that picture"),
        (f"{job_pictures.PREVIEWS}{{job}}", preview, "The last picture that a running job showed"),
    ):
        _route(app, path, endpoint, Response, responses, summary)


def _shown(queue: JobQueue) -> set[str]:
    """The pictures of the jobs that ended lately."""
    return {each.picture.removeprefix(job_pictures.PICTURES) for each in queue.ended} - {""}


def _no_picture(what: str) -> Response:
    return refusal(404, f"no {what}", "see /health/comfyui")


async def _within(seconds: float, wanted: Future[Picture]) -> Picture:
    """The picture; it goes on being fetched for the next client. Raises TimeoutError."""
    future = asyncio.wrap_future(wanted)
    # A reason that comes too late interests nobody.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.wait_for(asyncio.shield(future), seconds)


def _add_page(app: FastAPI) -> None:
    shown = page.load()
    headers = {
        "Content-Security-Policy": shown.policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def show() -> Response:
        return Response(shown.body, media_type="text/html", headers=headers)


def _add_refusals(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404:
            return refusal(404, "there is nothing here", "see /openapi.json")
        if error.status_code == 405:
            return refusal(405, "this server is read-only", "use GET", **(error.headers or {}))
        return refusal(error.status_code, str(error.detail), "ask again later")

    @app.exception_handler(RequestValidationError)
    async def correct(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:]))
        return refusal(422, f"{where}: {first['msg']}", "correct it; see /openapi.json")

    @app.exception_handler(Exception)
    async def report_fault(request: Request, error: Exception) -> Response:
        return refusal(500, "this server has a fault", "see its log")
