"""doit list: doit's own."""

from __future__ import annotations

from doit import cmd_list

from ..engine.outputs import GuardedCommand


class List(GuardedCommand, cmd_list.List):  # type: ignore[misc]
    pass
