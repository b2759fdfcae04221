"""doit help: doit's own."""

from __future__ import annotations

from doit import cmd_help

from ..engine.outputs import GuardedCommand


class Help(GuardedCommand, cmd_help.Help):  # type: ignore[misc]
    pass
