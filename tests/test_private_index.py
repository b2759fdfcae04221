"""A package index that wants a password: packages come from it, and the password goes nowhere."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.rig import Ended
from tests.servers import index_server

pytestmark = pytest.mark.afresh

TOKEN = "t0ken-of-the-index"


def holding(folder: Path, secret: str) -> list[Path]:
    """The files below a folder that hold a secret, or are named after it."""
    return [
        path
        for path in folder.rglob("*")
        if secret in path.name
        or (path.is_file() and not path.is_symlink() and secret.encode() in path.read_bytes())
    ]


def why(run: Ended) -> str:
    """The one line that says why a step failed."""
    (line,) = (line for line in run.output.splitlines() if re.match(r"✗ \w+: ", line))
    return line


def test_a_private_index_serves_and_its_token_stays_in_the_environment(
    machine: MachineMaker, forge: Forge
) -> None:
    # A name of its own, since uv's cache is the user's and ports come again.
    project = f"tiny{os.urandom(4).hex()}"
    alpha = forge.node("alpha", {"requirements.txt": f"{project}\n"})
    with index_server(project, f"me:{TOKEN}") as (url, seen):
        index = url.replace("://", "://${INDEX_USER}:${INDEX_TOKEN}@") + "/simple"
        spec = {
            "custom_nodes": [{"url": alpha.url}],
            "python": {"torch": "none", "extra_index_urls": [index]},
        }
        rig = machine(**spec)
        run = rig.doit("build", code=2, INDEX_USER="me")
        assert "the variable INDEX_TOKEN isn't set, and python.extra_index_urls needs it" in why(
            run
        )
        assert ".env.local" in why(run)
        run = rig.doit("build", code=2, INDEX_USER="me", INDEX_TOKEN=f"wrong-{TOKEN}")
        refused = f"{url}/simple answers 401 Unauthorized: correct its credentials, which are in"
        assert f"✗ lock: packages can't be resolved: {refused}" in why(run)
        assert TOKEN not in run.output
        assert not rig.lock_file.exists()
        (rig.folder / ".env.local").write_text(f"INDEX_USER=me\nINDEX_TOKEN={TOKEN}\n")
        built = rig.doit("build")
        assert rig.packages()[project] == "1.0"
        assert f"me:{TOKEN}" in seen
        assert rig.doit("build").executed == set()
        assert TOKEN not in built.output + rig.doit("plan").output
        cold = machine("cold", **spec)
        shutil.copy(rig.lock_file, cold.lock_file)
        empty = {"UV_CACHE_DIR": str(cold.folder / "cache"), "UV_DEFAULT_INDEX": f"{url}/simple"}
        wrong = {"INDEX_USER": "me", "INDEX_TOKEN": f"wrong-{TOKEN}"}
        run = cold.doit("build", "locked=1", code=2, **empty, **wrong)
        assert f"✗ environment: the locked packages can't be installed: {refused}" in why(run)
        assert TOKEN not in run.output
    second = machine("second", **spec)
    for name in ("machine.lock", ".env.local"):
        shutil.copy(rig.folder / name, second.folder)
    again = second.doit("build", "locked=1")
    assert second.packages() == rig.packages()
    for one in (rig, second, cold):
        assert holding(one.workspace, TOKEN) == []
        assert TOKEN not in one.lock_file.read_text()
    assert TOKEN not in again.output
