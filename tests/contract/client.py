"""A small HTTP client for the tests, and the jobs they queue."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import requests

T = TypeVar("T")
Prompt = dict[str, dict[str, Any]]

JOB_TIMEOUT = 30.0
"""Seconds until a small job must be done, on a busy machine."""

_colours = itertools.count(random.randrange(0xFF0000))


def until(condition: Callable[[], T], timeout: float, what: str) -> T:
    """Wait until the condition is true and return its value; AssertionError after timeout.

    Whoever waits takes a tenth of a core at most: what is waited for needs them.
    """
    deadline = time.monotonic() + timeout
    while True:
        begin = time.thread_time()
        value = condition()
        cost = time.thread_time() - begin
        if value:
            return value
        assert time.monotonic() < deadline, f"waited {timeout} s for {what}"
        time.sleep(max(0.01, 9 * cost))


def picture(width: int = 16, height: int = 16, batch_size: int = 1) -> dict[str, Any]:
    """A node that makes images in a colour not used before."""
    colour = next(_colours) % 0x1000000
    inputs = {"width": width, "height": height, "batch_size": batch_size, "color": colour}
    return {"class_type": "EmptyImage", "inputs": inputs}


def save(source: str, prefix: str) -> dict[str, Any]:
    return {"class_type": "SaveImage", "inputs": {"images": [source, 0], "filename_prefix": prefix}}


def preview(source: str) -> dict[str, Any]:
    return {"class_type": "PreviewImage", "inputs": {"images": [source, 0]}}


def checkpoint(name: str) -> dict[str, Any]:
    return {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}}


class Client:
    """Talks to one server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False

    def trust(self, authority: Path) -> None:
        """Speak https, with what this authority signed."""
        self.url = self.url.replace("http://", "https://")
        self._session.verify = str(authority)

    def get(self, path: str, **params: str) -> requests.Response:
        return self._session.get(self.url + path, params=params, timeout=JOB_TIMEOUT)

    def get_with(self, headers: dict[str, str], path: str, **params: str) -> requests.Response:
        url = self.url + path
        return self._session.get(url, params=params, headers=headers, timeout=JOB_TIMEOUT)

    def post(self, path: str, **kwargs: Any) -> requests.Response:
        return self._session.post(self.url + path, timeout=JOB_TIMEOUT, **kwargs)

    def json(self, path: str, **params: str) -> Any:
        response = self.get(path, **params)
        assert response.status_code == 200, f"{path}: {response.status_code} {response.text}"
        return response.json()

    def answers(self) -> bool:
        try:
            return self.get("/prompt").ok
        except requests.ConnectionError:
            return False

    def queue(self, prompt: Prompt, **more: Any) -> str:
        """Queue a prompt that is right; its id comes back."""
        response = self.post("/prompt", json={"prompt": prompt, **more})
        assert response.status_code == 200, response.text
        assert response.json()["node_errors"] == {}
        return str(response.json()["prompt_id"])

    def refusal(self, prompt: Any) -> dict[str, Any]:
        """The answer to a prompt that is wrong."""
        response = self.post("/prompt", json={"prompt": prompt})
        assert response.status_code == 400, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def result(self, prompt_id: str) -> dict[str, Any]:
        """Wait until a job is done; its entry in the history comes back."""
        path = f"/history/{prompt_id}"
        what = f"job {prompt_id}"
        found: dict[str, Any] = until(lambda: self.json(path), JOB_TIMEOUT, what)[prompt_id]
        return found

    def run(self, prompt: Prompt, **more: Any) -> dict[str, Any]:
        return self.result(self.queue(prompt, **more))

    def running(self) -> list[str]:
        """The ids of the running jobs."""
        return [job[1] for job in self.json("/queue")["queue_running"]]

    def pending(self) -> list[str]:
        return [job[1] for job in self.json("/queue")["queue_pending"]]


def messages(entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The messages of a done job, by event."""
    return dict(entry["status"]["messages"])
