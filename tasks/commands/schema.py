"""doit schema: the JSON Schema of machine.yaml, for editors."""

from __future__ import annotations

import json
from typing import Any

from doit.cmd_base import Command

from ..engine.outputs import GuardedCommand


class Schema(GuardedCommand, Command):  # type: ignore[misc]
    doc_purpose = "print the JSON Schema of machine.yaml, for editors"

    def execute(self, opt_values: dict[str, Any], pos_args: list[str]) -> int:
        from ..spec.json_schema import schema

        print(json.dumps(schema(), indent=2))
        return 0
