"""Become a command, in the same process: `python shim.py [OPTION …] -- COMMAND [ARG …]`.

--env FILE          variables from a JSON file (0600). PM2 shows every app's environment and
                    keeps it in its dump, so a secret is in that file only
--nice N            scheduling priority
--open-files N      how many files it may have open
--report FOLDER     have ComfyUI write its load report there: names this process as the one in
                    which the environment's `.pth` line runs `inside/entry.py`
--changes FILE      have it note there what it changes in the generation that it runs from
--database FILE     have ComfyUI's database there: a copy of the one that was used last, where this
                    commit of ComfyUI has none yet

An app of a workspace also ends what its process of before left behind.
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
"""Seconds after which ComfyUI reaps an orphan that ended."""
ENTRY = Path(__file__).parent / "inside" / "entry.py"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", type=Path)
    parser.add_argument("--nice", type=int)
    parser.add_argument("--open-files", type=int)
    parser.add_argument("--report")
    parser.add_argument("--changes")
    parser.add_argument("--database", type=Path)
    parser.add_argument("command", nargs="+")
    wanted = parser.parse_args()
    if wanted.nice is not None:
        os.setpriority(os.PRIO_PROCESS, 0, wanted.nice)
    if wanted.open_files is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        limits = (wanted.open_files, max(hard, wanted.open_files))
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    if wanted.database is not None:
        _prepare(wanted.database)
    variables = json.loads(wanted.env.read_text(encoding="utf-8")) if wanted.env else {}
    if "COMFY_MACHINE_WORKSPACE" in os.environ:
        variables |= _adopt()
    if wanted.report is not None:
        variables |= {
            "COMFY_MACHINE_REPORT": wanted.report,
            "COMFY_MACHINE_INSIDE": str(ENTRY),
            "COMFY_MACHINE_INSIDE_PID": str(os.getpid()),
            "COMFY_MACHINE_ORPHANS": str(REAPED_AFTER),
        }
        # An exec keeps it: what leaves its family is given back to it.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        if wanted.changes is not None:
            variables["COMFY_MACHINE_CHANGES"] = wanted.changes
    os.execvpe(wanted.command[0], wanted.command, {**os.environ, **variables})


def _adopt() -> dict[str, str]:
    """End what an earlier process of this app left; mark what this one starts as its own."""
    from tasks.host.pm2 import apps

    with contextlib.suppress(Exception):
        workspace, name = Path(os.environ[apps.WORKSPACE]), os.environ[apps.NAME]
        for each in apps.end_left(workspace, {name}):
            print(f"ended, since {name} had left it behind: pid {each.pid}", flush=True)
    return {apps.PROCESS: apps.identity(os.getpid()) or ""}


def _prepare(database: Path) -> None:
    from tasks.host.comfyui import database_files
    from tasks.host.system.failure import Failure

    try:
        database_files.prepare(database)
    except Failure as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
