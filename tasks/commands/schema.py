"""doit schema: the JSON Schema of machine.yaml, for editors, and of the documents of --json."""

from __future__ import annotations

import json
from typing import Any

from doit.cmd_base import Command
from doit.exceptions import InvalidCommand

from ..engine.outputs import GuardedCommand
from .shared.command import option


class Schema(GuardedCommand, Command):  # type: ignore[misc]
    doc_purpose = "the JSON Schema of machine.yaml, or of what --json prints"
    doc_usage = "[--of NAME]"
    cmd_options = (
        option("of", "status, plan, list, generations, probe, audit or error", "machine.yaml"),
    )

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        print(json.dumps(_schema(opt_values["of"]), indent=2))
        return 0


def _schema(name: str) -> dict[str, Any]:
    from ..spec.json_schema import schema
    from .shared import documents

    if name == "machine.yaml":
        return schema()
    if name not in documents.SHAPES:
        raise InvalidCommand(f"no schema of {name}; known: machine.yaml, "
                             f"{', '.join(documents.SHAPES)}")  # fmt: skip
    return documents.schema(name)
