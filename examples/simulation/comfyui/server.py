"""The HTTP and WebSocket server. All routes but /internal are also available under /api.

Custom nodes import this module for ``PromptServer.instance``.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import ssl
import sys
import time
import uuid
from io import BytesIO
from typing import Any, ClassVar

import nodes
from execution import PromptExecutor
from simulation import about, catalogue, devices, files, origins
from simulation.assets import catalogue as assets
from simulation.flags import SINCE_2026, args
from simulation.http import web
from simulation.job_api import INVALID_ID, JobApi, is_job_id
from simulation.jobs import SECRETS, Job, PromptQueue
from simulation.prompts import validate_prompt

_PAGE = "<!doctype html><title>ComfyUI</title><p>A simulated ComfyUI. It has no frontend."


class PromptServer:
    """Routes, connected clients and the queue. There is one, made before custom nodes load."""

    instance: ClassVar[PromptServer]

    def __init__(self, loop: asyncio.AbstractEventLoop, device: devices.Device) -> None:
        PromptServer.instance = self
        self.loop = loop
        self.device = device
        self.messages: asyncio.Queue[tuple[str, Any, str | None]] = asyncio.Queue()
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.number = 0
        self.prompt_queue = PromptQueue(self.queue_updated)
        self.executor = PromptExecutor(self.send_sync)
        self.routes = web.RouteTableDef()
        self.app = web.Application(
            client_max_size=round(args.max_upload_size * 1024 * 1024),
            middlewares=[origins.middleware()],
        )
        self._add_own_routes()

    def _add_own_routes(self) -> None:
        get, post = self.routes.get, self.routes.post
        get("/")(self.get_root)
        get("/ws")(self.get_socket)
        get("/system_stats")(self.get_system_stats)
        get("/features")(self.get_features)
        get("/embeddings")(catalogue.get_embeddings)
        get("/extensions")(catalogue.get_extensions)
        get("/models")(catalogue.get_model_folders)
        get("/models/{folder}")(catalogue.get_models)
        get("/object_info")(catalogue.get_object_info)
        get("/object_info/{node_class}")(catalogue.get_node_info)
        get("/prompt")(self.get_prompt)
        post("/prompt")(self.post_prompt)
        get("/queue")(self.get_queue)
        post("/queue")(self.post_queue)
        get("/history")(self.get_history)
        get("/history/{prompt_id}")(self.get_history_item)
        post("/history")(self.post_history)
        post("/interrupt")(self.post_interrupt)
        post("/free")(self.post_free)
        get("/view")(files.view)
        post("/upload/image")(files.upload)

    def add_routes(self) -> None:
        """Serve what the server and the custom nodes have registered."""
        prefixed = [
            web.route(route.method, "/api" + route.path, route.handler, **route.kwargs)
            for route in self.routes
            if isinstance(route, web.RouteDef)
        ]
        since_2026 = [
            *JobApi(self.prompt_queue).routes(),
            web.get("/api/assets", assets.list_assets),
        ]
        self.app.add_routes(
            [
                web.get("/internal/logs", catalogue.get_logs),
                web.get("/internal/folder_paths", catalogue.get_folder_paths),
                *(since_2026 if SINCE_2026 else []),
                *prefixed,
                *self.routes,
            ]
        )

    async def run(self) -> None:
        """Bind the port and serve until the process ends, with TLS where there is a certificate.

        A port that is taken ends the process with code 1: with OSError until 2025.
        """
        runner = web.AppRunner(self.app, access_log=None)
        await runner.setup()
        context, scheme = None, "http"
        if args.tls_keyfile and args.tls_certfile:
            context, scheme = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "https"
            context.load_cert_chain(args.tls_certfile, args.tls_keyfile)
        logging.info("Starting server\n")
        for address in args.listen.split(","):
            try:
                await web.TCPSite(runner, address, args.port, ssl_context=context).start()
            except OSError as problem:
                if not SINCE_2026 or problem.errno != errno.EADDRINUSE:
                    raise
                logging.error(
                    "Port %s is already in use on address %s. Please close the other application"
                    " or use a different port with --port.",
                    args.port,
                    address,
                )
                sys.exit(1)
            shown = f"[{address}]" if ":" in address else address
            logging.info("To see the GUI go to: %s://%s:%s", scheme, shown, args.port)
        while True:
            await self.send(*await self.messages.get())

    # Messages to clients

    def send_sync(self, event: str, data: Any, sid: str | None = None) -> None:
        """Send to one client, or to all; from any thread."""
        self.loop.call_soon_threadsafe(self.messages.put_nowait, (event, data, sid))

    async def send(self, event: str, data: Any, sid: str | None = None) -> None:
        if sid is None:
            targets = list(self.sockets.values())
        else:
            targets = [self.sockets[sid]] if sid in self.sockets else []
        for socket in targets:
            try:
                if isinstance(data, bytes):
                    await socket.send_bytes(data)
                else:
                    await socket.send_json({"type": event, "data": data})
            except (ConnectionError, RuntimeError) as problem:
                logging.warning("send error: %s", problem)

    def send_progress(self, value: float, total: float, preview: Any) -> None:
        """Pass on a node's progress, and its preview: (format, Pillow image, size or None)."""
        self.executor.progress(value, total, preview)
        if preview is None:
            return
        kind, image, size = preview
        if size is not None:
            image = image.copy()
            image.thumbnail((size, size))
        buffer = BytesIO()
        image.save(buffer, format=kind, quality=95, compress_level=1)
        header = (1).to_bytes(4, "big") + (2 if kind == "PNG" else 1).to_bytes(4, "big")
        self.send_sync("preview", header + buffer.getvalue(), self.executor.client_id)

    def queue_info(self) -> dict[str, Any]:
        return {"exec_info": {"queue_remaining": self.prompt_queue.remaining()}}

    def queue_updated(self) -> None:
        self.send_sync("status", {"status": self.queue_info()})

    async def get_socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sid = request.query.get("clientId", "") or uuid.uuid4().hex
        self.sockets[sid] = socket
        try:
            await self.send("status", {"status": self.queue_info(), "sid": sid}, sid)
            if self.executor.client_id == sid and self.executor.last_node_id is not None:
                await self.send("executing", {"node": self.executor.last_node_id}, sid)
            async for message in socket:
                if message.type == web.WSMsgType.TEXT:
                    await self._answer(sid, message.data)
        finally:
            if self.sockets.get(sid) is socket:
                del self.sockets[sid]
        return socket

    async def _answer(self, sid: str, text: str) -> None:
        try:
            kind = json.loads(text).get("type")
        except (ValueError, AttributeError):
            logging.warning("Invalid JSON received from client %s: %s", sid, text)
            return
        if kind == "feature_flags":
            await self.send("feature_flags", about.features(), sid)

    # State

    async def get_root(self, _: web.Request) -> web.Response:
        return web.Response(text=_PAGE, content_type="text/html")

    async def get_system_stats(self, _: web.Request) -> web.Response:
        return web.json_response(about.system_stats(self.device))

    async def get_features(self, _: web.Request) -> web.Response:
        return web.json_response(about.features())

    # Jobs

    async def get_prompt(self, _: web.Request) -> web.Response:
        return web.json_response(self.queue_info())

    async def post_prompt(self, request: web.Request) -> web.Response:
        logging.info("got prompt")
        data = await request.json()
        if "number" in data:
            number = float(data["number"])
        else:
            front = "front" in data and data["front"]
            number = -self.number if front else self.number
            self.number += 1
        if "prompt" not in data:
            missing = "No prompt provided"
            error = {"type": "no_prompt", "message": missing, "details": missing, "extra_info": {}}
            return web.json_response({"error": error, "node_errors": {}}, status=400)
        prompt_id = data.get("prompt_id")
        if SINCE_2026 and prompt_id is not None and not is_job_id(prompt_id):
            return web.json_response({"error": INVALID_ID, "node_errors": {}}, status=400)
        if prompt_id is None and (SINCE_2026 or "prompt_id" not in data):
            prompt_id = uuid.uuid4()
        verdict = validate_prompt(data["prompt"], data.get("partial_execution_targets"))
        if verdict.error is not None:
            logging.warning("invalid prompt: %s", verdict.error)
            answer = {"error": verdict.error, "node_errors": verdict.node_errors}
            return web.json_response(answer, status=400)
        extra = data.get("extra_data", {})
        if "client_id" in data:
            extra["client_id"] = data["client_id"]
        secrets = {}
        if SINCE_2026:
            secrets = {each: extra.pop(each) for each in SECRETS if each in extra}
            extra["create_time"] = int(time.time() * 1000)
        job: Job = (number, str(prompt_id), data["prompt"], extra, verdict.outputs)
        self.prompt_queue.put(job, secrets)
        return web.json_response(
            {"prompt_id": job[1], "number": number, "node_errors": verdict.node_errors}
        )

    async def get_queue(self, _: web.Request) -> web.Response:
        running, pending = self.prompt_queue.snapshot()
        return web.json_response({"queue_running": running, "queue_pending": pending})

    async def post_queue(self, request: web.Request) -> web.Response:
        data = await request.json()
        if data.get("clear"):
            self.prompt_queue.clear()
        for prompt_id in data.get("delete", []):
            self.prompt_queue.delete(prompt_id)
        return web.Response()

    async def get_history(self, request: web.Request) -> web.Response:
        max_items = request.query.get("max_items")
        offset = int(request.query.get("offset", -1))
        count = None if max_items is None else int(max_items)
        return web.json_response(self.prompt_queue.history(count, offset))

    async def get_history_item(self, request: web.Request) -> web.Response:
        return web.json_response(self.prompt_queue.done(request.match_info["prompt_id"]))

    async def post_history(self, request: web.Request) -> web.Response:
        data = await request.json()
        if data.get("clear"):
            self.prompt_queue.clear_history()
        for prompt_id in data.get("delete", []):
            self.prompt_queue.delete_history(prompt_id)
        return web.Response()

    async def post_interrupt(self, request: web.Request) -> web.Response:
        try:
            prompt_id = (await request.json()).get("prompt_id")
        except json.JSONDecodeError:
            prompt_id = None
        running = [job[1] for job in self.prompt_queue.snapshot()[0]]
        if not prompt_id:
            logging.info("Global interrupt (no prompt_id specified)")
            nodes.interrupt_processing()
        elif prompt_id in running:
            logging.info("Interrupting prompt %s", prompt_id)
            nodes.interrupt_processing()
        else:
            logging.info("Prompt %s is not currently running, skipping interrupt", prompt_id)
        return web.Response()

    async def post_free(self, request: web.Request) -> web.Response:
        data = await request.json()
        if data.get("free_memory", False):
            self.executor.forget()
        return web.Response()
