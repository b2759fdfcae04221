"""doit plan says what doit would do, and changes nothing."""

from __future__ import annotations

import sys
from pathlib import Path

from comfy_machine.host.storage import garbage
from tests.conftest import MachineMaker
from tests.contract.client import until
from tests.forge import Forge
from tests.rig import Rig


def every_byte(folder: Path) -> dict[str, tuple[int, int, int, object]]:
    """Mode, inode, time (ns) and content or target of all that is below a folder."""
    found: dict[str, tuple[int, int, int, object]] = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        content: object = None
        if path.is_symlink():
            content = path.readlink()
        elif path.is_file():
            content = path.read_bytes()
        found[str(path)] = (status.st_mode, status.st_ino, status.st_mtime_ns, content)
    return found


def test_a_plan_leaves_the_machine_byte_for_byte_as_it_was(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    alpha = forge.node("alpha")
    alpha.git("tag", "v1")
    model = tmp_path / "volume" / "one.safetensors"
    model.parent.mkdir()
    model.write_bytes(b"weights")
    rig = machine(custom_nodes=[{"url": alpha.url, "ref": "v1"}])
    rig.doit()
    rig.doit("down")
    until(lambda: not garbage.at_work(rig.layout), 20, "the sweeper's end")

    rig.layout.garbage.mkdir(exist_ok=True)
    (rig.layout.garbage / "what a killed sweeper left").touch()
    assert "collection" in rig.doit("plan").planned

    alpha.commit({"more.py": "", "requirements.txt": "packaging\n"}, tag="v2")
    rig.spec["custom_nodes"] = [
        {"url": alpha.url, "ref": "v2", "env": {"A": "b"}},
        {"url": forge.node("beta").url},
    ]
    rig.spec["models"] = {
        "files": [{"target": "checkpoints/one.safetensors", "source": str(model)}]
    }
    rig.spec["workers"] = [{"name": "one", "command": ["sleep", "9"]}]
    rig.spec["instances"]["gpus"] = 2
    rig.write()
    before = every_byte(rig.folder) | every_byte(model.parent)
    planned = rig.doit("plan").planned
    assert every_byte(rig.folder) | every_byte(model.parent) == before
    assert {"nodes:alpha", "nodes:beta", "lock", "generation:assemble", "pm2:gpu1"} <= planned


FORGETS = """
import sys
from comfy_machine.host.system import files
from comfy_machine.lock import packages

def record(run, python):
    {wrap}
        files.write_receipt(run.layout.packages, {{}})
    {swallow}

packages.record = record
from doit.__main__ import main
sys.exit(main())
"""


def forgetful(rig: Rig, file: Path, wrap: str, swallow: str) -> None:
    file.write_text(FORGETS.format(wrap=wrap, swallow=swallow))
    rig.program = (sys.executable, str(file))


def test_a_stage_that_forgets_the_overlay_fails_loudly(
    machine: MachineMaker, tmp_path: Path
) -> None:
    rig = machine()
    rig.write()
    before = every_byte(rig.folder)
    forgetful(rig, tmp_path / "forgets.py", "if True:", "")
    planned = rig.doit("plan", code=2)
    assert "unexpected RealWrite" in planned.output
    assert f"a bug of doit plan: it was about to write {rig.layout.receipts}" in planned.output
    forgetful(rig, tmp_path / "forgets.py", "try:", "except Exception: pass")
    planned = rig.doit("plan", code=2)
    assert f"a bug of doit plan: it was about to write {rig.layout.receipts}" in planned.output
    assert every_byte(rig.folder) == before
