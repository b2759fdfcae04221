"""Secrets on a whole machine: where they are, who can read them, and that they leave."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.forge import NODE, Forge
from tests.rig import DOIT, Rig

TELLS = "import os, sys, time\nprint('the token is', os.environ['TOKEN'], file=sys.stderr)\n"
WITHOUT_UMASK = ("/bin/sh", "-c", 'umask 000; exec "$0" "$@"', str(DOIT))


def with_secret(rig: Rig, secret: str) -> set[Path]:
    """The files below the workspace that hold it."""
    paths = (path for path in rig.workspace.rglob("*") if path.is_file() and not path.is_symlink())
    return {path for path in paths if secret.encode() in path.read_bytes()}


def written_by_all(rig: Rig) -> set[Path]:
    """The files and folders below the workspace that everyone may write into."""
    return {
        path
        for path in (rig.workspace, *rig.workspace.rglob("*"))
        if not path.is_symlink() and path.stat().st_mode & stat.S_IWOTH
    }


def test_what_is_told_is_masked_in_private_logs_and_what_left_machine_yaml_leaves_the_disk(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.repository("teller", {"__init__.py": NODE.format(name="Teller") + TELLS})
    rig = machine(
        custom_nodes=[{"url": node.url}],
        instances={"env": {"TOKEN": "${TOKEN}"}},
        workers=[
            {
                "name": "fetch",
                "command": [sys.executable, "-c", TELLS + "time.sleep(600)"],
                "env": {"TOKEN": "${TOKEN}"},
            }
        ],
    )
    rig.program = WITHOUT_UMASK
    rig.doit(TOKEN="canary-secret")
    logs = {name: rig.layout.log(name) for name in ("validation", "comfyui-gpu0", "fetch-gpu0")}
    until(
        lambda: all("the token is **" in log.read_text() for log in logs.values()), 30, "the masks"
    )
    modes = {log.name: log.stat().st_mode & 0o777 for log in rig.layout.logs.iterdir()}
    assert modes == dict.fromkeys(modes, 0o600)
    assert with_secret(rig, "canary-secret") == set(rig.layout.secrets.iterdir())
    assert written_by_all(rig) == set()
    rig.spec["instances"]["env"] = {"TOKEN": "none"}
    rig.spec["workers"] = []
    rig.doit()
    assert with_secret(rig, "canary-secret") == set()
