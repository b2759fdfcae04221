"""Become a command, in the same process: `python shim.py [OPTION …] -- COMMAND [ARG …]`.

--env FILE          variables from a JSON file (0600). PM2 shows every app's environment and
                    keeps it in its dump, so a secret is in that file only
--nice N            scheduling priority
--open-files N      limit of open files
--report FOLDER     where ComfyUI writes its load report; the environment's `.pth` line runs
                    `inside/entry.py` in this process only. The drain mark lies beside it
--changes FILE      where ComfyUI records what it changes in its generation
--database FILE     ComfyUI's database; if the file doesn't exist, it starts as a copy of the
                    database used last

An app of a workspace also notes its start, and ends what its previous process left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import resource
import sys
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
"""From <linux/prctl.h>."""
REAPED_AFTER = 600
"""Seconds after which ComfyUI reaps an orphan that has ended."""
MARK = "draining"
"""The name of `Layout.draining`, which isn't loaded here: that takes longer than all the rest."""
ENTRY = Path(__file__).resolve().parent / "inside" / "entry.py"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", type=Path)
    parser.add_argument("--nice", type=int)
    parser.add_argument("--open-files", type=int)
    parser.add_argument("--report")
    parser.add_argument("--changes")
    parser.add_argument("--database", type=Path)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    adopted = _adopt() if "COMFY_MACHINE_WORKSPACE" in os.environ else {}
    if options.nice is not None:
        os.setpriority(os.PRIO_PROCESS, 0, options.nice)
    if options.open_files is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        limits = (options.open_files, max(hard, options.open_files))
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    if options.database is not None:
        _prepare(options.database)
    variables = json.loads(options.env.read_text(encoding="utf-8")) if options.env else {}
    variables |= adopted
    if options.report is not None:
        variables |= {
            "COMFY_MACHINE_REPORT": options.report,
            "COMFY_MACHINE_INSIDE": str(ENTRY),
            "COMFY_MACHINE_INSIDE_PID": str(os.getpid()),
            "COMFY_MACHINE_ORPHANS": str(REAPED_AFTER),
            "COMFY_MACHINE_DRAIN": str(Path(options.report).parent / MARK),
        }
        # Orphaned descendants are reparented to this process; exec keeps the setting.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        if options.changes is not None:
            variables["COMFY_MACHINE_CHANGES"] = options.changes
    os.execvpe(options.command[0], options.command, {**os.environ, **variables})


def _adopt() -> dict[str, str]:
    """Note the start; end what the previous process of this app left behind; identify this one to
    its children."""
    from comfy_machine.host.pm2 import apps, process_starts

    workspace, name = Path(os.environ[apps.WORKSPACE]), os.environ.get(apps.NAME, "")
    with contextlib.suppress(Exception):
        process_starts.note(workspace, name)
    with contextlib.suppress(Exception):
        for each in apps.end_left(workspace, {name}):
            print(f"ended a process that {name} had left behind: pid {each.pid}", flush=True)
    return {apps.PROCESS: apps.identity(os.getpid()) or "", "COMFY_MACHINE_LOG_TIMES": "yes"}


def _prepare(database: Path) -> None:
    from comfy_machine.host.comfyui import database_files
    from comfy_machine.host.system.failure import Failure

    try:
        database_files.prepare(database)
    except Failure as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
