"""Outputs of nodes, cached by their inputs: an identical prompt executes nothing."""

from __future__ import annotations

import itertools
import json
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import nodes
from simulation.flags import args
from simulation.validation import Prompt, is_link


@dataclass(frozen=True)
class Entry:
    """What a node returned: a list of values for each output, and what the client is shown."""

    values: list[list[Any]]
    shown: dict[str, Any] | None


class Signatures:
    """Keys of a prompt's nodes: class, inputs, and the same of all nodes before them."""

    _unique = itertools.count()

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._known: dict[str, str] = {}

    def get(self, node_id: str) -> str:
        if node_id not in self._known:
            entry = self._prompt[node_id]
            inputs = {
                name: ["", self.get(value[0]), value[1]] if is_link(value) else value
                for name, value in entry["inputs"].items()
            }
            changed = self._changed(entry)
            self._known[node_id] = json.dumps(
                [entry["class_type"], changed, inputs], sort_keys=True, default=repr
            )
        return self._known[node_id]

    def _changed(self, entry: dict[str, Any]) -> Any:
        """What IS_CHANGED answers; NaN, as after an exception, is like nothing else."""
        function = getattr(nodes.NODE_CLASS_MAPPINGS[entry["class_type"]], "IS_CHANGED", None)
        if function is None:
            return None
        values = {k: None if is_link(v) else v for k, v in entry["inputs"].items()}
        try:
            answer = function(**values)
        except Exception as problem:
            logging.warning("WARNING: %s", problem)
            answer = float("nan")
        return f"#{next(self._unique)}" if answer != answer else answer


class Cache:
    """The outputs of the last prompt; with --cache-lru those of N nodes, with --cache-none none.

    Instances of node classes are kept by node id as long as prompts have the node.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._objects: dict[tuple[str, str], Any] = {}

    def keep_only(self, prompt: Prompt, signatures: Signatures) -> None:
        """Forget what the prompt has no use for."""
        wanted = {signatures.get(node_id) for node_id in prompt if "inputs" in prompt[node_id]}
        if args.cache_none:
            self._entries.clear()
        elif args.cache_lru:
            while len(self._entries) > args.cache_lru:
                self._entries.popitem(last=False)
        else:
            for key in set(self._entries) - wanted:
                del self._entries[key]
        alive = {(node_id, entry["class_type"]) for node_id, entry in prompt.items()}
        self._objects = {key: value for key, value in self._objects.items() if key in alive}

    def get(self, key: str) -> Entry | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: str, entry: Entry) -> None:
        self._entries[key] = entry

    def instance(self, node_id: str, class_type: str) -> Any:
        key = (node_id, class_type)
        if key not in self._objects:
            self._objects[key] = nodes.NODE_CLASS_MAPPINGS[class_type]()
        return self._objects[key]
