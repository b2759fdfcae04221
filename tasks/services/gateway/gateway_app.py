"""The application: its endpoints behind one dependency that says who asks."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from ...spec.layout import Layout
from .admission import admission
from .asset_files import AssetFiles
from .assets_api import AssetsApi
from .derived_pictures import DerivedPictures
from .home_instance import HomeInstance
from .job_answers import PREFIX, JobAnswers, base
from .job_desk import JobDesk
from .job_metrics import JobMetrics
from .job_outputs import JobOutputs
from .jobs_api import JobsApi
from .kept_files import KeptFiles
from .native_api import NativeApi
from .native_jobs import NativeJobs
from .native_socket import NativeSocket
from .page_api import PageApi
from .queue_overview import QueueOverview
from .refused import add_refusals, away

HEALTH = f"{PREFIX}/health"


def application(desk: JobDesk, token: str, ready: Callable[[], None]) -> FastAPI:
    """It calls `ready` once it knows all jobs; before, it says that it doesn't yet."""
    layout = Layout(desk.settings.workspace)
    files, answers = AssetFiles(layout.inputs), JobAnswers(desk.settings, desk.view, desk.reasons)
    outputs, kept = JobOutputs(desk, layout), KeptFiles(desk, layout)
    who, counted = admission(token), JobMetrics(desk.view)
    summed = QueueOverview(desk)
    home = HomeInstance(desk.instances, desk.settings.machine)
    pictures, page = DerivedPictures(files, home), PageApi(home)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        begun = asyncio.create_task(begin())
        yield
        begun.cancel()
        await desk.stop()
        await home.close()

    async def begin() -> None:
        try:
            await asyncio.to_thread(files.sweep)
            await desk.start()
            ready()
            await kept.watch()
        except (OSError, ValueError) as error:
            # Such as a token or certificate that can't be read: nothing mends this process.
            print(f"the gateway ends: {error}", file=sys.stderr, flush=True)
            signal.raise_signal(signal.SIGTERM)

    async def admit(connection: HTTPConnection) -> None:
        # A load balancer has no token.
        connection.state.owner = "" if connection.url.path == HEALTH else who(connection)
        if not desk.ready:
            raise away()

    async def health() -> Response:
        """Whether the gateway knows all jobs; it needs no token."""
        return JSONResponse({"status": "healthy"})

    async def metrics() -> Response:
        """For Prometheus."""
        return Response(await asyncio.to_thread(counted.text), media_type=CONTENT_TYPE_LATEST)

    async def queue() -> Response:
        """How many jobs wait and run, and whether jobs are started."""
        view = desk.view
        about = {"queued": view.waiting, "running": len(view.running())}
        return JSONResponse({"paused": await desk.is_paused(), **about})

    async def overview(request: Request) -> Response:
        """What a page shows: how many wait, run and are dead, which wait in vain, and the jobs that
        ended last."""
        return JSONResponse(await summed.told(base(request)))

    async def pause() -> Response:
        """Start no more jobs; those that run go on."""
        await desk.pause(on=True)
        return await queue()

    async def resume() -> Response:
        """Start jobs again."""
        await desk.pause(on=False)
        return await queue()

    app = FastAPI(
        title="comfy-machine",
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
        dependencies=[Depends(admit)],
    )
    app.add_api_route(HEALTH, health, methods=["GET"])
    app.add_api_route("/metrics", metrics, methods=["GET"])
    app.add_api_route(f"{PREFIX}/queue", queue, methods=["GET"])
    app.add_api_route(f"{PREFIX}/queue/overview", overview, methods=["GET"])
    app.add_api_route(f"{PREFIX}/queue/pause", pause, methods=["POST"])
    app.add_api_route(f"{PREFIX}/queue/resume", resume, methods=["POST"])
    app.include_router(JobsApi(desk, files, answers, outputs).router)
    app.include_router(AssetsApi(desk, files, answers, outputs, pictures).router)
    native = NativeApi(desk, files, outputs, layout.inputs, desk.instances, home, pictures)
    app.include_router(native.router)
    app.include_router(NativeJobs(desk).router)
    sockets = NativeSocket(desk.view, native.exec_info, page.known_features)
    for path in ("/ws", "/api/ws"):
        app.add_api_websocket_route(path, sockets.serve)
    app.include_router(page.router)
    add_refusals(app)
    return app
