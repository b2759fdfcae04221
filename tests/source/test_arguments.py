"""Arguments of ComfyUI: held against the pinned ComfyUI's own, before anything is installed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from tests.conftest import MachineMaker
from tests.rig import SIMULATOR


def comfyui_without(flag: str, folder: Path) -> Path:
    """The simulator as one that has never heard of a flag."""
    shutil.copytree(SIMULATOR, folder)
    module = folder / "simulation" / "flags.py"
    text, found = re.subn(rf'^ *add\("{flag}".*\n', "", module.read_text(), flags=re.M)
    assert found == 1
    module.write_text(text)
    return folder


def test_an_unknown_flag_is_refused_at_once_with_its_line_and_the_one_that_was_meant(
    machine: MachineMaker,
) -> None:
    rig = machine(instances={"args": ["--reserve-vram", 2, "--disable-smart-memroy"]})
    run = rig.doit("build", code=2)
    line = rig.file.read_text().splitlines().index("  - --disable-smart-memroy") + 1
    assert re.search(
        rf"machine.yaml:{line}: instances.args\[2\]: --disable-smart-memroy is no flag of ComfyUI"
        r"[\d. ]* \(\w{12}\); did you mean --disable-smart-memory\?",
        run.output,
    )
    assert run.failed == {"source"}
    assert not rig.layout.generations.exists(), "nothing was made for it"
    rig.spec["instances"]["args"][2] = "--disable-smart-memory"
    rig.doit("build")
    assert rig.doit("build").executed == set()


def test_what_is_written_later_is_looked_at_too(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit("build")
    rig.spec["instances"]["overrides"] = {0: {"args": ["--reserve-vram", "much"]}}
    run = rig.doit("build", code=2)
    line = rig.file.read_text().splitlines().index("      - --reserve-vram") + 1
    assert re.search(
        rf"machine.yaml:{line}: instances.overrides\[0\].args\[0\]: ComfyUI .*: "
        "argument --reserve-vram: invalid float value: 'much'",
        run.output,
    )
    assert rig.doit("plan", code=None).output.count("invalid float value") == 1
    rig.spec["instances"]["overrides"] = {0: {"args": ["--reserve", 2, "--cache-lru", -1]}}
    assert rig.doit("build").executed == {"source"}, "a beginning, and a negative number"


def test_a_path_that_is_mounted_later_is_no_mistake_in_a_build(
    machine: MachineMaker, tmp_path: Path
) -> None:
    rig = machine(instances={"args": ["--front-end-root", str(tmp_path / "later")]})
    run = rig.doit("build")
    assert re.search(r"! .*later must exist when instances start", run.output)
    run = rig.doit(code=2)
    assert run.failed == {"limits"}
    (tmp_path / "later").mkdir()
    rig.doit("build")
    assert rig.doit("build").executed == set()


def test_a_comfyui_that_lacks_what_every_machine_needs_is_refused_in_the_first_second(
    machine: MachineMaker, tmp_path: Path
) -> None:
    old = comfyui_without("--whitelist-custom-nodes", tmp_path / "old")
    run = machine(comfyui={"path": str(old)}).doit("build", code=2)
    assert re.search(
        r"ComfyUI[\d. ]* \(\w{12}\) doesn't know --whitelist-custom-nodes, which every machine "
        r"needs: the oldest usable one is ComfyUI 0.3.44 \(July 2025\); correct comfyui.ref",
        run.output,
    )
    assert run.failed == {"source"}


def test_a_flag_that_can_be_done_without_is_passed_only_where_it_is_known(
    machine: MachineMaker, tmp_path: Path
) -> None:
    comfyui = comfyui_without("--database-url", tmp_path / "other")
    module = comfyui / "main.py"
    module.write_text(module.read_text().replace("    database.open_database()\n", ""))
    rig = machine(comfyui={"path": str(comfyui)})
    rig.doit()
    assert rig.healthy()
    assert "--database-url" not in " ".join(rig.config()[0]["args"])


def test_where_flags_are_asked_for_only_later_they_are_in_the_generations_receipt(
    machine: MachineMaker, tmp_path: Path
) -> None:
    comfyui = tmp_path / "newer"
    shutil.copytree(SIMULATOR, comfyui)
    main = comfyui / "main.py"
    # What doit's own Python has no package of, and the environment's has.
    first = "import sys\nassert '/ws/.machine/' in sys.prefix\n"
    main.write_text(main.read_text().replace("import asyncio\n", f"import asyncio\n{first}", 1))
    rig = machine(comfyui={"path": str(comfyui)}, instances={"args": ["--lowvrma"]})
    run = rig.doit("build", code=2)
    assert run.failed == {"generation:assemble"}
    assert "--lowvrma is no flag of ComfyUI" in run.output
    rig.spec["instances"]["args"] = ["--lowvram"]
    rig.doit("build")
    assert rig.doit("build").executed == set()


def test_where_flags_stay_unknown_nothing_is_refused(machine: MachineMaker, tmp_path: Path) -> None:
    comfyui = tmp_path / "odd"
    shutil.copytree(SIMULATOR, comfyui)
    main = comfyui / "main.py"
    silent = 'import sys\nif "--help" in sys.argv:\n    raise SystemExit(1)\n'
    main.write_text(main.read_text().replace("import asyncio\n", f"import asyncio\n{silent}", 1))
    rig = machine(comfyui={"path": str(comfyui)}, instances={"args": ["--disable-mmap"]})
    run = rig.doit()
    assert run.output.count("unknown which flags this ComfyUI has") == 1
    assert rig.healthy()
    assert rig.doit().executed == set()
