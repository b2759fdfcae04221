"""What the gateway refuses, in the form that clients of the Comfy API v2 read."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from nats.errors import Error
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.websockets import WebSocket

RETRY = 2
"""Seconds after which a client may ask again while the store is away."""
CODES = {401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed"}


class Refused(Exception):  # noqa: N818  reads as what happened
    """An answer other than the one asked for; `code` is for programs, the message for people."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.details, self.headers = status, code, details, headers

    def answer(self) -> Response:
        error = {"code": self.code, "message": str(self), "details": self.details}
        return JSONResponse({"error": error}, self.status, headers=self.headers)


def not_found(what: str) -> Refused:
    """`what` is not there."""
    return Refused(404, "not_found", f"there is no {what}")


def away() -> Refused:
    """The store doesn't answer; clients of the API wait and ask again at this code."""
    return Refused(
        429,
        "deployment_not_ready",
        "the store of jobs doesn't answer",
        headers={"Retry-After": str(RETRY)},
    )


def add_refusals(app: FastAPI) -> None:
    """Let each refusal have one form."""

    @app.exception_handler(Refused)
    async def refused(asked: HTTPConnection, error: Refused) -> Response | None:
        if isinstance(asked, WebSocket):
            await asked.close(1008)
            return None
        return error.answer()

    @app.exception_handler(Error)
    async def silent(_: Request, error: Error) -> Response:
        return away().answer()

    @app.exception_handler(ClientDisconnect)
    async def left(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # which nobody reads

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        code = CODES.get(error.status_code, "invalid_request")
        headers = dict(error.headers or {})
        return Refused(error.status_code, code, str(error.detail), headers=headers).answer()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return Refused(400, "invalid_request", f"{where}: {first['msg']}").answer()
