"""What a connected client is told."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from tests.contract.client import JOB_TIMEOUT, Client, Prompt, picture, preview

Receive = Callable[[], Awaitable[dict[str, Any]]]


async def connected(
    server: Client, client_id: str, talk: Callable[[Receive], Awaitable[Any]]
) -> Any:
    """Connect, and talk with a function that receives the next message."""
    url = f"{server.url}/ws?clientId={client_id}"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:

        async def receive() -> dict[str, Any]:
            message: dict[str, Any] = await socket.receive_json(timeout=JOB_TIMEOUT)
            return message

        return await talk(receive)


def watch(server: Client, prompt: Prompt) -> list[dict[str, Any]]:
    """All messages from the queueing of a job to its end."""
    client_id = uuid.uuid4().hex

    async def talk(receive: Receive) -> list[dict[str, Any]]:
        await receive()
        prompt_id = await asyncio.to_thread(server.queue, prompt, client_id=client_id)
        seen: list[dict[str, Any]] = []
        while True:
            message = await receive()
            data = message["data"]
            if data.get("prompt_id") == prompt_id:
                seen.append(message)
            if message["type"] == "executing" and data["node"] is None:
                return seen

    found: list[dict[str, Any]] = asyncio.run(connected(server, client_id, talk))
    return found


def test_a_client_is_told_the_queue_and_its_id_at_once(server: Client) -> None:
    async def talk(receive: Receive) -> dict[str, Any]:
        return await receive()

    message = asyncio.run(connected(server, "x1", talk))
    assert message["type"] == "status"
    assert message["data"]["sid"] == "x1"
    assert isinstance(message["data"]["status"]["exec_info"]["queue_remaining"], int)


def test_a_client_without_id_gets_one(server: Client) -> None:
    async def talk(receive: Receive) -> dict[str, Any]:
        return await receive()

    message = asyncio.run(connected(server, "", talk))
    assert len(message["data"]["sid"]) == 32


def test_a_job_is_followed_from_start_to_end(server: Client) -> None:
    seen = watch(server, {"1": picture(), "2": preview("1")})
    kinds = [message["type"] for message in seen if message["type"] != "progress_state"]
    assert kinds == [
        "execution_start",
        "execution_cached",
        "executing",
        "executing",
        "executed",
        "execution_success",
        "executing",
    ]
    nodes = [message["data"]["node"] for message in seen if message["type"] == "executing"]
    assert nodes == ["1", "2", None]
    (executed,) = (message["data"] for message in seen if message["type"] == "executed")
    assert (executed["node"], executed["display_node"]) == ("2", "2")
    assert executed["output"]["images"][0]["type"] == "temp"


def test_progress_names_the_state_of_each_node(server: Client) -> None:
    seen = watch(server, {"1": picture(), "2": preview("1")})
    last = [message["data"] for message in seen if message["type"] == "progress_state"][-1]
    assert {node: entry["state"] for node, entry in last["nodes"].items()} == {
        "1": "finished",
        "2": "finished",
    }


def test_a_failing_job_ends_with_an_execution_error(server: Client) -> None:
    save = {"images": ["1", 0], "filename_prefix": "../../outside"}
    seen = watch(server, {"1": picture(), "2": {"class_type": "SaveImage", "inputs": save}})
    kinds = [message["type"] for message in seen if message["type"] != "progress_state"]
    assert kinds[-2:] == ["execution_error", "executing"]
