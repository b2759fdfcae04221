"""Execution of jobs: the thread that works through the queue, and how a node is called."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import nodes
from comfy.model_management import (
    InterruptProcessingException,
    throw_exception_if_processing_interrupted,
)
from simulation.cache import Cache, Entry, Signatures
from simulation.jobs import Job, PromptQueue
from simulation.validation import Prompt, is_link

Send = Callable[[str, Any, "str | None"], None]


class PromptExecutor:
    """Executes one prompt after the other and tells the client about it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.cache = Cache()
        self.client_id: str | None = None
        self.last_node_id: str | None = None
        self.last_prompt_id: str | None = None
        self._forgetting = threading.Event()

    def progress(self, value: float, total: float, preview: Any) -> None:
        """Pass a node's progress on."""
        data = {
            "value": value, "max": total,
            "prompt_id": self.last_prompt_id, "node": self.last_node_id,
        }  # fmt: skip
        self._send("progress", data, self.client_id)

    def forget(self) -> None:
        """Drop all kept outputs before the next job."""
        self._forgetting.set()

    def execute(self, job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
        """Execute a job; its part of the history and its status come back.

        SystemExit from a node goes through, and ends the thread that called.
        """
        _, prompt_id, prompt, extra, outputs = job
        self.client_id = extra.get("client_id")
        self.last_prompt_id = prompt_id
        nodes.interrupt_processing(False)
        if self._forgetting.is_set():
            self._forgetting.clear()
            self.cache = Cache()
        run = Run(self, prompt_id, prompt, extra)
        succeeded = run.execute(outputs)
        self.last_node_id = None
        status = {
            "status_str": "success" if succeeded else "error",
            "completed": succeeded,
            "messages": run.messages,
        }
        return run.result(), status

    def tell(self, event: str, data: dict[str, Any], broadcast: bool = False) -> None:
        """Send to the job's client, if it has one."""
        if self.client_id is not None or broadcast:
            self._send(event, data, self.client_id)


class Run:
    """One execution of one prompt."""

    def __init__(
        self, executor: PromptExecutor, prompt_id: str, prompt: Prompt, extra: dict[str, Any]
    ) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self._executor = executor
        self._cache = executor.cache
        self._prompt_id = prompt_id
        self._prompt = prompt
        self._extra = extra
        self._signatures = Signatures(prompt)
        self._entries: dict[str, Entry] = {}
        self._executed: list[str] = []
        self._states: dict[str, dict[str, Any]] = {}

    def execute(self, outputs: list[str]) -> bool:
        """Execute the outputs and what they need; whether that succeeded."""
        self._note("execution_start")
        self._cache.keep_only(self._prompt, self._signatures)
        for node_id in self._prompt:
            signature = self._signatures.get(node_id)
            entry = self._cache.get(signature)
            if entry is not None:
                self._entries[signature] = entry
        cached = [node_id for node_id in self._prompt if self._entry(node_id) is not None]
        self._note("execution_cached", nodes=cached)
        for output in outputs:
            if self._entry(output) is not None:  # from the cache, or an equal node's
                self._show(output)
            for node_id in self._needed(output):
                if not self._execute(node_id):
                    return False
        self._note("execution_success")
        return True

    def result(self) -> dict[str, Any]:
        entries = {node_id: self._entry(node_id) for node_id in self._prompt}
        shown = {k: v.shown for k, v in entries.items() if v is not None and v.shown is not None}
        meta = {
            node_id: {
                "node_id": node_id, "display_node": node_id,
                "parent_node": None, "real_node_id": node_id,
            }
            for node_id in shown
        }  # fmt: skip
        return {"outputs": shown, "meta": meta}

    def _entry(self, node_id: str) -> Entry | None:
        return self._entries.get(self._signatures.get(node_id))

    def _needed(self, node_id: str) -> list[str]:
        """The node and those before it without an output yet, in the order to execute them."""
        order: list[str] = []
        if self._entry(node_id) is not None:
            return order
        for value in self._prompt[node_id]["inputs"].values():
            if is_link(value):
                order += [n for n in self._needed(value[0]) if n not in order]
        return [*order, node_id]

    def _execute(self, node_id: str) -> bool:
        if self._entry(node_id) is not None:
            return True
        inputs: dict[str, list[Any]] = {}
        try:
            self._progress(node_id, 0.0, "running")
            self._executor.last_node_id = node_id
            self._tell("executing", node_id)
            inputs = self._inputs(node_id)
            instance = self._cache.instance(node_id, self._prompt[node_id]["class_type"])
            entry = call(instance, inputs)
        except InterruptProcessingException:
            logging.info("Processing interrupted")
            self._note("execution_interrupted", broadcast=True, **self._where(node_id))
            return False
        except Exception as problem:
            self._fail(node_id, problem, inputs)
            return False
        signature = self._signatures.get(node_id)
        self._entries[signature] = entry
        self._cache.put(signature, entry)
        self._executed.append(node_id)
        if entry.shown is not None:
            self._show(node_id)
        self._progress(node_id, 1.0, "finished")
        return True

    def _inputs(self, node_id: str) -> dict[str, list[Any]]:
        """A list of values for each input: one for a widget, several from a list output."""
        entry = self._prompt[node_id]
        declared = nodes.NODE_CLASS_MAPPINGS[entry["class_type"]].INPUT_TYPES()
        known = declared.get("required", {}) | declared.get("optional", {})
        values: dict[str, list[Any]] = {}
        for name, value in entry["inputs"].items():
            if is_link(value):
                source = self._entry(value[0])
                assert source is not None
                values[name] = source.values[int(value[1])]
            elif name in known:
                values[name] = [value]
        hidden = {
            "PROMPT": self._prompt,
            "EXTRA_PNGINFO": self._extra.get("extra_pnginfo"),
            "UNIQUE_ID": node_id,
            "API_KEY_COMFY_ORG": self._extra.get("api_key_comfy_org"),
        }
        for name, kind in declared.get("hidden", {}).items():
            if kind in hidden:
                values[name] = [hidden[kind]]
        return values

    def _where(self, node_id: str) -> dict[str, Any]:
        kind = self._prompt[node_id]["class_type"]
        return {"node_id": node_id, "node_type": kind, "executed": list(self._executed)}

    def _fail(self, node_id: str, problem: Exception, inputs: dict[str, list[Any]]) -> None:
        logging.error("!!! Exception during processing !!! %s", problem)
        logging.error(traceback.format_exc())
        kind = type(problem)
        prefix = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        plain = (int, float, bool, str, type(None))
        self._note(
            "execution_error",
            **self._where(node_id),
            exception_message=f"{problem}\n",
            exception_type=prefix + kind.__qualname__,
            traceback=traceback.format_tb(sys.exc_info()[2]),
            current_inputs={
                name: [value if isinstance(value, plain) else str(value) for value in values]
                for name, values in inputs.items()
            },
            current_outputs=[n for n in self._prompt if self._entry(n) is not None],
        )

    def _note(self, event: str, *, broadcast: bool = False, **data: Any) -> None:
        data = {"prompt_id": self._prompt_id, **data, "timestamp": int(time.time() * 1000)}
        self.messages.append((event, data))
        self._executor.tell(event, data, broadcast)

    def _tell(self, event: str, node_id: str, **data: Any) -> None:
        known = {"node": node_id, "display_node": node_id, **data, "prompt_id": self._prompt_id}
        self._executor.tell(event, known)

    def _show(self, node_id: str) -> None:
        entry = self._entry(node_id)
        self._tell("executed", node_id, output=entry and entry.shown)

    def _progress(self, node_id: str, value: float, state: str) -> None:
        self._states[node_id] = {
            "value": value, "max": 1.0, "state": state,
            "node_id": node_id, "prompt_id": self._prompt_id,
            "display_node_id": node_id, "parent_node_id": None, "real_node_id": node_id,
        }  # fmt: skip
        data = {"prompt_id": self._prompt_id, "nodes": dict(self._states)}
        self._executor.tell("progress_state", data)


def call(instance: Any, inputs: dict[str, list[Any]]) -> Entry:
    """Call a node's FUNCTION, once for each value where inputs are lists."""
    function = getattr(instance, instance.FUNCTION)
    if getattr(instance, "INPUT_IS_LIST", False):
        arguments: list[dict[str, Any]] = [dict(inputs)]
    else:
        count = max((len(values) for values in inputs.values()), default=1)
        arguments = [
            {name: values[min(i, len(values) - 1)] for name, values in inputs.items()}
            for i in range(count)
        ]
    results: list[Any] = []
    shown: list[dict[str, Any]] = []
    for given in arguments:
        throw_exception_if_processing_interrupted()
        result = function(**given)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        if isinstance(result, dict):
            if "ui" in result:
                shown.append(result["ui"])
            if "result" in result:
                results.append(result["result"])
        else:
            results.append(result)
    return Entry(_merge(instance, results), _join(shown))


def _merge(instance: Any, results: list[Any]) -> list[list[Any]]:
    if not results:
        return []
    width = len(results[0])
    is_list = getattr(instance, "OUTPUT_IS_LIST", (False,) * width)
    merged: list[list[Any]] = []
    for slot in range(width):
        values = [result[slot] for result in results]
        merged.append([v for value in values for v in value] if is_list[slot] else values)
    return merged


def _join(shown: list[dict[str, Any]]) -> dict[str, Any] | None:
    if not shown:
        return None
    return {name: [item for one in shown for item in one[name]] for name in shown[0]}


def work(queue: PromptQueue, executor: PromptExecutor, send: Send) -> None:
    """Work through the queue, for ever. A node that exits takes this thread with it."""
    while True:
        number, job = queue.take()
        start = time.perf_counter()
        result, status = executor.execute(job)
        queue.finish(number, result, status)
        if executor.client_id is not None:
            send("executing", {"node": None, "prompt_id": job[1]}, executor.client_id)
        seconds = time.perf_counter() - start
        logging.info("Prompt executed in %.2f seconds", seconds, extra={"color": "green"})
