"""Clients that post jobs for as long as they are wanted, and know what became of each."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

from tests.contract.client import until

NOTE = """
import time

class Note:
    CATEGORY, FUNCTION, RETURN_TYPES, OUTPUT_NODE = "test", "run", (), True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {}), "file": ("STRING", {})}}

    def run(self, text, file):
        time.sleep(0.05)
        with open(file, "a") as opened:
            opened.write(text + "\\n")
        return ()

NODE_CLASS_MAPPINGS = {"Note": Note}
"""
"""A custom node that notes in a file that a job ran."""


class Customer(threading.Thread):
    """A plain client: it posts a job, and repeats at the next instance what isn't answered 200;
    then it waits for the job's result."""

    def __init__(self, ports: Sequence[int], name: str, notes: Path) -> None:
        super().__init__(name=name)
        self._urls = [f"http://127.0.0.1:{port}" for port in ports]
        self._notes = notes
        self._session = requests.Session()
        self._session.trust_env = False
        self.enough = threading.Event()
        self.accepted: list[str] = []
        self.refused: list[requests.Response] = []
        self.lost: list[str] = []

    def run(self) -> None:
        number = 0
        while not self.enough.is_set():
            number += 1
            label, url = f"{self.name}-{number}", self._urls[number % len(self._urls)]
            inputs = {"text": label, "file": str(self._notes)}
            prompt = {"1": {"class_type": "Note", "inputs": inputs}}
            try:
                answer = self._session.post(f"{url}/prompt", json={"prompt": prompt}, timeout=30)
            except requests.ConnectionError:
                time.sleep(0.02)
                continue
            if answer.status_code != 200:
                self.refused.append(answer)
                time.sleep(0.02)
                continue
            self.accepted.append(label)
            try:
                self._await(url, answer.json()["prompt_id"])
            except (AssertionError, requests.ConnectionError) as error:
                self.lost.append(f"{label}: {error}")

    def _await(self, url: str, job: str) -> None:
        until(lambda: self._session.get(f"{url}/history/{job}", timeout=30).json(), 30, job)


@contextmanager
def customers(ports: Sequence[int], notes: Path) -> Iterator[list[Customer]]:
    """Two of them, from the time on when each has had jobs; at the end each has its last result."""
    found = [Customer(ports, name, notes) for name in ("one", "two")]
    for each in found:
        each.start()
    try:
        until(lambda: all(len(each.accepted) > 3 for each in found), 30, "customers")
        yield found
    finally:
        for each in found:
            each.enough.set()
        for each in found:
            each.join()


def ran(found: Sequence[Customer], notes: Path) -> dict[str, int]:
    """Job that was accepted → how often it ran."""
    times = Counter(notes.read_text().split())
    return {label: times[label] for each in found for label in each.accepted}
