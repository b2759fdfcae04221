"""doit uninstall: remove what the machine made; list it only, unless --yes is given."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from ..engine.exit_codes import ExitCode
from ..engine.run import Run
from ..engine.step import of_file
from ..host.pm2 import pm2, shutdown
from ..host.system import private_folder, systemd
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from ..host.system.units import size
from .shared import belongings
from .shared.belongings import Belonging, Kind
from .shared.command import Call, MachineCommand, locked, option


class Uninstall(MachineCommand):
    doc_purpose = "list what the machine made; with --yes, remove it"
    doc_description = (
        "Models, outputs, inputs and user data (settings, workflows, files that nodes wrote) stay "
        "unless asked for, as do caches and machine.yaml. Nothing outside of the workspace is "
        "removed but the systemd unit, the private folder and, if asked for, caches; links are "
        "removed and not followed. It can be repeated."
    )
    cmd_options = (
        option("yes", "do it; without, only list"),
        option("models", "models too, where their folder is in the workspace"),
        option("outputs", "outputs too"),
        option("inputs", "inputs too"),
        option("user-data", "user data too: settings, workflows, databases, files of nodes"),
        option("caches", "the caches of git, uv and npm too; other programs use them as well"),
    )

    def perform(self, call: Call) -> int:
        run = call.run
        asked: set[Kind] = {kind for kind in belongings.KEPT if call.options[kind]}
        if not call.options["yes"]:
            with run.working("uninstall", "measures what there is"):
                return listing(run, asked)
        with locked(run, self.name), run.working("uninstall", "measures what there is"):
            return uninstall(run, asked)


def listing(run: Run, asked: Collection[Kind]) -> int:
    """Say what would go and what would stay; return the exit code."""
    found, unit = belongings.find(run, asked), belongings.unit(run)
    going, staying = _sorted(found, asked)
    running = [app.name for app in pm2.running(run.layout)]
    if running:
        print(f"would end: {', '.join(running)}")
    if unit.exists():
        print(f"would remove the systemd unit {unit}")
    print("would remove:" if going else "nothing to remove")
    for each in going:
        print(_line(each))
    _show_edits(run)
    _show_staying(run, staying)
    if going or unit.exists() or running:
        print(f"do it: {PROGRAM} uninstall --yes{''.join(f' --{each}' for each in sorted(asked))}")
    return 0


def _sorted(
    found: Sequence[Belonging], asked: Collection[Kind]
) -> tuple[list[Belonging], list[Belonging]]:
    """What goes, and what stays."""
    goes = {"machine", *asked}
    going = [each for each in found if each.kind in goes and not each.outside]
    return going, [each for each in found if each not in going]


def _line(each: Belonging) -> str:
    if target := each.leads_to:
        # What is below .machine is told of as a whole.
        stays = "" if target.startswith(".machine/") else f"; {target} stays"
        return f"  {'link':>9}  {each.path}: {each.says}{stays}"
    but = ", without what stays" if any(os.path.lexists(path) for path in each.keep) else ""
    return f"  {size(each.size):>9}  {each.path}: {each.says}{but}"


def _show_edits(run: Run) -> None:
    lines = list(belongings.edits(run))
    if lines:
        print("changed by hand, and gone with it:")
    for line in lines:
        print(f"  ! {line}")


def _show_staying(run: Run, staying: Sequence[Belonging]) -> None:
    print("stays:")
    for each in staying:
        why = "outside of the workspace" if each.outside else f"--{each.kind} removes it"
        print(f"{_line(each)} ({why})")
    print(f"             {run.machine.file} and its lock")


def uninstall(run: Run, asked: Collection[Kind]) -> int:
    """Remove it, and say so; the caller holds the run lock. Returns the exit code."""
    layout, unit = run.layout, belongings.unit(run)
    going, staying = _sorted(belongings.find(run, asked), asked)
    _show_edits(run)
    # First: it would start the machine again.
    failures = _remove_unit(unit) if unit.exists() else 0
    running = shutdown.end_processes(layout, "down", run.doing)
    if ended := [app.name for app in running]:
        print(f"ended: {', '.join(ended)}")
    private = private_folder.folder(layout.workspace)
    for each in going:
        # The run lock is in there: nothing may begin before all is gone.
        if each.path != private:
            failures += _remove(run, each)
    if not failures:
        _remove_empty_folders(layout.workspace)
    _show_staying(run, staying)
    shutdown.forget(layout)
    with suppress(OSError):
        private.parent.rmdir()
    return ExitCode.FAILED if failures else ExitCode.OK


def _remove_unit(unit: Path) -> int:
    try:
        systemd.remove(systemd.manager(), unit.name)
    except Failure as failure:
        print(f"uninstall: the systemd unit {unit} stays: {failure}", file=sys.stderr)
        return 1
    print(f"removed the systemd unit {unit}")
    return 0


def _remove(run: Run, each: Belonging) -> int:
    line = _line(each)
    run.doing(f"removes {each.path}")
    try:
        belongings.remove(each)
    except OSError as error:
        print(f"uninstall: {of_file(run, error)}; then repeat this", file=sys.stderr)
        return 1
    print(f"removed{line}", flush=True)
    return 0


def _remove_empty_folders(workspace: Path) -> None:
    for folder in (workspace / "shared", workspace):
        if not folder.is_symlink():
            # Not empty, most often; or a mount point.
            with suppress(OSError):
                folder.rmdir()
