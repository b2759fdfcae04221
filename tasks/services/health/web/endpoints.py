"""The endpoints. All but the page are documented at /openapi.json."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.security import HTTPBearer
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.exceptions import HTTPException

from ..conditions.answer_board import Answer, Answers, settle
from ..model.answers import (
    Installation,
    InstanceHealth,
    InstancesHealth,
    ModelsHealth,
    Overview,
    Refusal,
    Verdict,
)
from ..sampling.sampler import Sampler
from . import page
from .guard import Guard, refusal
from .metrics import Metrics

LONGEST_WAIT = 600
"""Seconds that an answer may be held."""
FRESH_WITHIN = 0.5
"""Seconds that an answer is held for news that is known to be there."""
FOLLOWERS = 64
"""Clients that may follow the events at once."""
EVENTS_EVERY = 1.0
"""Seconds between two events of one kind."""
METRICS = "text/plain; version=1.0.0; charset=utf-8"

TOKEN = Depends(HTTPBearer(auto_error=False, description="health.token, where there is one."))
"""For the document: it is Guard that asks for it."""
ASKED = (401, 403, 422)
"""Refusals of a question, whatever it asks for."""

Wait = Annotated[
    float, Query(ge=0, le=LONGEST_WAIT, description="Seconds to wait until it is healthy.")
]
Pick = Callable[[Answers], Answer | None]


def make(sampler: Sampler, token: str, ready: Callable[[], None]) -> Any:
    """The application; `ready` is called when it begins to answer."""

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
    _add_page(app)
    _add_refusals(app)
    return Guard(app, token)


def _told(model: type[Verdict], *refusals: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of an endpoint's answers."""
    answers = {200: model, 503: model} | dict.fromkeys(refusals, Refusal)
    return {code: {"model": told} for code, told in answers.items()}


def _refused(*codes: int) -> dict[int | str, dict[str, Any]]:
    """What it says of refusals where other answers aren't JSON."""
    schema = {"$ref": f"#/components/schemas/{Refusal.__name__}"}
    content = {"application/json": {"schema": schema}}
    return {code: {"content": content, "description": "Refusal"} for code in codes}


def _route(
    app: FastAPI,
    path: str,
    endpoint: Callable[..., Any],
    kind: type[Response],
    told: dict[int | str, dict[str, Any]],
    summary: str,
) -> None:
    """An endpoint that answers GET and HEAD; documented is only GET, or its id would be there
    twice."""
    app.add_api_route(path, endpoint, methods=["GET", "HEAD"], include_in_schema=False)
    app.add_api_route(
        path, endpoint, methods=["GET"], response_class=kind, responses=told, summary=summary,
        dependencies=[TOKEN] if 401 in told else [],
    )  # fmt: skip


def _add_health(app: FastAPI, sampler: Sampler) -> None:
    board = sampler.board

    async def give(request: Request, pick: Pick, wait: float) -> Response:
        gone = request.is_disconnected
        before = board.answers
        if await _is_behind(sampler):
            await board.wait(lambda answers: answers is not before, FRESH_WITHIN, gone)
        if wait:
            await board.wait(lambda answers: _is_well(pick(answers)), wait, gone)
        answer = pick(board.answers)
        if answer is None:
            known = ", ".join(map(str, board.answers.by_gpu)) or "none"
            return refusal(404, "this GPU isn't configured", f"configured are: {known}")
        return Response(answer.body, answer.code, media_type="application/json")

    def add(
        path: str, model: type[Verdict], summary: str, pick: Pick, refusals: Sequence[int] = ASKED
    ) -> None:
        async def endpoint(request: Request, wait: Wait = 0) -> Response:
            return await give(request, pick, wait)

        _route(app, path, endpoint, JSONResponse, _told(model, *refusals), summary)

    add("/health/comfyui", Overview, "The whole machine", lambda a: a.overview)
    add("/health/comfyui/installation", Installation, "What is installed, and the run that does so",
        lambda a: a.installation)  # fmt: skip
    add("/health/comfyui/instances", InstancesHealth, "All instances", lambda a: a.instances)
    add("/health/comfyui/models", ModelsHealth, "All declared models", lambda a: a.models)
    add("/readyz", Verdict, "Some instance takes jobs", lambda a: a.ready, [422])

    async def instance(
        request: Request, gpu: Annotated[int, Path(ge=0, description="Its number.")], wait: Wait = 0
    ) -> Response:
        return await give(request, lambda answers: answers.by_gpu.get(gpu), wait)

    told = _told(InstanceHealth, 404, *ASKED)
    path = "/health/comfyui/instances/{gpu}"
    _route(app, path, instance, JSONResponse, told, "The instance of one GPU")


async def _is_behind(sampler: Sampler) -> bool:
    if not sampler.sees_run:
        return False
    # In a thread: the volume may hang, and other clients don't wait for it.
    look = asyncio.to_thread(sampler.is_behind)
    with contextlib.suppress(asyncio.TimeoutError):
        return await asyncio.wait_for(look, FRESH_WITHIN)
    return False


def _is_well(answer: Answer | None) -> bool:
    return answer is None or answer.healthy


def _add_probes(app: FastAPI, sampler: Sampler) -> None:
    metrics, began = Metrics(lambda: sampler.board.answers), round(time.time(), 1)

    async def livez() -> Response:
        if sampler.alive:
            told = Verdict(status="healthy", code="Healthy", since=began)
        else:
            since = round(time.time() - (time.monotonic() - sampler.board.answers.at), 1)
            told = Verdict(status="unhealthy", code="AnswersOld", since=since,
                           reason="its answers are old",
                           advice=f"kill {os.getpid()}: PM2 starts it anew")  # fmt: skip
        code = 200 if sampler.alive else 503
        return Response(told.model_dump_json(), code, media_type="application/json")

    async def scrape() -> Response:
        return Response(metrics.text(), media_type=METRICS)

    _route(app, "/livez", livez, JSONResponse, _told(Verdict), "This server is well")
    told = _refused(401, 403)
    _route(app, "/metrics", scrape, PlainTextResponse, told, "For Prometheus")


def _add_events(app: FastAPI, sampler: Sampler) -> None:
    board, followers = sampler.board, set[object]()

    async def place() -> AsyncIterator[None]:
        """Taken at once, so that no more get in while these begin."""
        if len(followers) >= FOLLOWERS:
            raise HTTPException(503, f"{FOLLOWERS} clients follow the events already")
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
            await settle(board.ended, EVENTS_EVERY)


def _streams(answers: Answers) -> dict[str, Answer]:
    return {
        "overview": answers.overview,
        "installation": answers.installation,
        "instances": answers.instances,
        "models": answers.models,
    }


def _add_page(app: FastAPI) -> None:
    shown = page.read()
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
    async def own_up(request: Request, error: Exception) -> Response:
        return refusal(500, "this server has a fault", "see its log")
