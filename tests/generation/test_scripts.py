"""The scripts of custom nodes: run when there is a reason, held to what is locked."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfy_machine.host.python import environments, uv
from comfy_machine.host.storage import digest_folders
from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.rig import Rig
from tests.wheels import wheel

PIP = (
    "import subprocess, sys\nsubprocess.check_call([sys.executable, '-m', 'pip', 'install', {}])\n"
)


def test_install_scripts_run_once_per_commit_and_environment(
    machine: MachineMaker, forge: Forge
) -> None:
    script = "open('count.txt', 'a').write('x')"
    node = forge.node("alpha", {"install.py": script})
    rig = machine(custom_nodes=[{"url": node.url, "script": "echo y >> said.txt"}])
    rig.doit("build")
    rig.spec["custom_nodes"].append({"url": forge.node("beta").url})
    rig.doit("build")
    folder = rig.comfyui / "custom_nodes" / "alpha"
    assert (folder / "count.txt").read_text() == "x"
    assert (folder / "said.txt").read_text() == "y\n"


def test_an_install_script_uses_the_new_environment(machine: MachineMaker, forge: Forge) -> None:
    script = (
        "import subprocess, sys\n"
        "subprocess.check_call([sys.executable, '-m', 'pip', 'install', '-q', 'toml'])\n"
    )
    rig = machine(custom_nodes=[{"url": forge.node("alpha", {"install.py": script}).url}])
    rig.doit("build")
    assert list(rig.environment.glob("lib/python*/site-packages/toml-*.dist-info"))
    assert rig.doit("build").executed == set()


def test_a_script_that_fails_fails_its_node(machine: MachineMaker, forge: Forge) -> None:
    node = forge.node("alpha", {"install.py": "raise SystemExit('no compiler here')"})
    rig = machine(custom_nodes=[{"url": node.url}])
    run = rig.doit("build", code=2)
    assert run.failed == {"generation:scripts"}
    assert "the script of custom node alpha failed" in run.output
    assert "no compiler here" in run.output
    assert not rig.layout.current.exists()
    rig.spec["custom_nodes"][0]["optional"] = True
    assert "! the script of custom node alpha failed" in rig.doit("build").output


def test_a_script_that_hangs_is_ended_with_what_it_started(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("alpha")
    rig = machine(
        custom_nodes=[{"url": node.url, "script": "sleep 300 & wait", "script_timeout": 1}]
    )
    assert "ran longer than 1 s" in rig.doit("build", code=2).output


def test_what_a_script_wrote_is_there_in_whichever_generation_becomes_current(
    machine: MachineMaker, forge: Forge
) -> None:
    text = "import os\nopen(os.path.join(os.path.dirname(__file__), 'built.txt')).read()\n"
    alpha = forge.repository(
        "alpha",
        {
            "__init__.py": text + "NODE_CLASS_MAPPINGS = {}\n",
            "install.py": "open('built.txt', 'w').close()",
        },
    )
    beta = forge.repository("beta", {"__init__.py": "1/0\n"})
    rig = machine(custom_nodes=[{"url": alpha.url}, {"url": beta.url}])
    assert rig.doit("build", code=2).failed == {"validation"}
    beta.commit({"__init__.py": "NODE_CLASS_MAPPINGS = {}\n"}, tag="fixed")
    rig.spec["custom_nodes"][1]["ref"] = "fixed"
    rig.doit("build")
    assert (rig.comfyui / "custom_nodes" / "alpha" / "built.txt").is_file()
    assert rig.doit("build").executed == set()


def test_a_failed_optional_script_is_not_tried_again_in_what_runs(
    machine: MachineMaker, forge: Forge
) -> None:
    script = "open('tries.txt', 'a').write('x')\nraise SystemExit('no')\n"
    node = forge.node("alpha", {"install.py": script})
    rig = machine(custom_nodes=[{"url": node.url, "optional": True}])
    rig.doit()
    tries = rig.comfyui / "custom_nodes" / "alpha" / "tries.txt"
    run = rig.doit()
    assert run.executed == set()
    assert "! the script of custom node alpha failed" in run.output
    assert tries.read_text() == "x"
    rig.doit("down")
    rig.doit("build")
    assert tries.read_text() == "xx"


def test_a_script_that_writes_into_a_package_finds_it_put_back_and_changes_nothing_else(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    node = forge.node("plain", {"requirements.txt": "toml"})
    rig = machine(custom_nodes=[{"url": node.url}])
    # Should this fail, the caller's own cache must not be what is written into.
    rig.env["UV_CACHE_DIR"] = str(tmp_path / "uv")
    rig.doit("build")
    before = rig.environment
    script = (
        "import os, toml\nopen(toml.__file__, 'a').write('# patched\\n')\n"
        "os.remove(os.path.join(os.path.dirname(toml.__file__), 'tz.py'))\n"
    )
    patcher = forge.node("patcher", {"install.py": script})
    rig.spec["custom_nodes"].append({"url": patcher.url})
    run = rig.doit("build")
    said = "! the script of custom node patcher wrote into toml/__init__.py, toml/tz.py of toml "
    assert said + "(put back)" in run.output
    for place in (rig.environment, before, tmp_path / "uv"):
        texts = [path.read_text() for path in place.rglob("toml/__init__.py")]
        assert texts
        assert "# patched" not in "".join(texts)
        assert list(place.rglob("toml/tz.py"))
    assert rig.doit("build").executed == set()


@pytest.fixture
def vision(machine: MachineMaker, forge: Forge, tmp_path: Path) -> Rig:
    """A machine with a headless package, and wheels to choose from that bring the same files."""
    links = tmp_path / "links"
    for name in ("vision-headless", "vision-contrib"):
        wheel(links, name, "1.0", files={"vision/__init__.py": f"who = {name!r}\n"})
    wheel(links, "extra", "1.0", ("toml",))
    wheel(links, "extra", "2.0", ("toml",))
    node = forge.node("plain", {"requirements.txt": "vision-headless\ntoml==0.10.1\n"})
    return machine(
        custom_nodes=[{"url": node.url}], python={"torch": "none", "find_links": [str(links)]}
    )


def test_what_a_script_installs_over_the_files_of_a_locked_package_is_removed_again(
    vision: Rig, forge: Forge, tmp_path: Path
) -> None:
    rig = vision
    words = f"'--no-index', '-f', {str(tmp_path / 'links')!r}, 'vision-contrib', 'extra==1.0'"
    over = forge.node("over", {"install.py": PIP.format(words)})
    rig.spec["custom_nodes"].append({"url": over.url})
    run = rig.doit("build")
    assert (
        "! the script of custom node over installed vision-contrib over the files of "
        "vision-headless, which are locked (removed, and the files put back)" in run.output
    )
    (file,) = rig.environment.glob("lib/python*/site-packages/vision/__init__.py")
    assert file.read_text() == "who = 'vision-headless'\n"
    assert "vision-contrib" not in rig.packages()
    assert rig.packages()["extra"] == "1.0"
    assert rig.doit("build").executed == set()


def test_pip_and_uv_refuse_to_move_what_is_locked(
    vision: Rig, forge: Forge, tmp_path: Path
) -> None:
    rig = vision
    rig.spec["custom_nodes"].append(
        {"url": forge.node("pip").url, "script": "python -m pip install idna==2.0"}
    )
    rig.spec["custom_nodes"].append(
        {"url": forge.node("uv").url, "script": f"{uv.binary()} pip install idna==2.0"}
    )
    run = rig.doit("build", code=2)
    assert "the script of custom node pip failed" in run.output
    assert "the script of custom node uv failed" in run.output
    joint = rig.layout.log("generation:scripts").read_text()
    idna = environments.installed(digest_folders.list_folders(rig.layout.environments)[-1])["idna"]
    assert f"pip:     The user requested (constraint) idna=={idna}" in joint
    assert f"idna=={idna}" in rig.layout.log("generation:scripts:uv").read_text()


def counting(words: str) -> str:
    return "open('ran.txt', 'a').write('x')\n" + (PIP.format(words) if words else "")


def test_a_script_runs_again_when_a_package_that_it_touches_changed_and_else_not(
    vision: Rig, forge: Forge, tmp_path: Path
) -> None:
    rig = vision
    from_links = f"'--no-index', '-f', {str(tmp_path / 'links')!r}, "
    nodes = {
        "asks": forge.node("asks", {"install.py": counting(from_links + "'extra==1.0'")}),
        "calm": forge.node("calm", {"install.py": counting("")}),
    }
    rig.spec["custom_nodes"] += [{"url": node.url} for node in nodes.values()]

    def ran() -> dict[str, int]:
        places = {name: rig.comfyui / "custom_nodes" / name / "ran.txt" for name in nodes}
        return {name: len(place.read_text()) for name, place in places.items()}

    rig.doit("build")
    # Another package comes: what the script added is kept, and it doesn't run.
    rig.spec["custom_nodes"].append({"url": forge.node("six", {"requirements.txt": "six"}).url})
    planned = rig.doit("plan")
    assert "run the script" not in planned.output
    rig.doit("build")
    assert ran() == {"asks": 1, "calm": 1}
    assert rig.packages()["extra"] == "1.0"
    assert "six" in rig.packages()
    # What its package asks for moves.
    rig.spec["python"]["overrides"] = ["toml==0.10.2"]
    planned = rig.doit("plan")
    assert "run the script of custom node asks" in planned.output
    assert "run the script of custom node calm" not in planned.output
    rig.doit("build")
    assert ran() == {"asks": 2, "calm": 1}
    # Its node goes, and what it added with it.
    rig.spec["custom_nodes"] = [
        each for each in rig.spec["custom_nodes"] if "asks" not in each["url"]
    ]
    rig.doit("build")
    assert "extra" not in rig.packages()
