"""The Python environment: one install, exact, and grown beside the one that runs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from comfy_machine.host.python import environments
from comfy_machine.host.storage import digest_folders
from tests.conftest import MachineMaker
from tests.forge import Forge
from tests.rig import Rig
from tests.wheels import wheel

pytestmark = pytest.mark.afresh
UNIQUE = os.urandom(4).hex()
"""uv keeps what it installed by name and version, and its cache is the user's."""


def packages(rig: Rig) -> set[str]:
    site = next((rig.environment / "lib").glob("python*/site-packages"))
    return {path.name.split("-")[0].lower() for path in site.glob("*.dist-info")}


def linked(folder: Path) -> list[Path]:
    """The files below a folder that have a second name somewhere."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in found if path.stat().st_nlink > 1]


def test_a_requirement_that_does_not_exist_is_blamed_on_its_node(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("alpha", {"requirements.txt": "# needs\nno-such-package-anywhere>=2\n"})
    rig = machine(custom_nodes=[{"url": node.url}, {"url": forge.node("beta").url}])
    run = rig.doit("build", code=2)
    assert run.failed == {"lock"}
    assert (
        "custom node alpha requires 'no-such-package-anywhere>=2' (requirements.txt:2)"
        in run.output
    )
    assert "log: " in run.output
    assert not rig.layout.current.exists()


def test_an_optional_node_whose_requirements_cannot_be_met_is_left_out(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("alpha", {"requirements.txt": "no-such-package-anywhere\n"})
    good = forge.node("beta", {"requirements.txt": "toml"})
    rig = machine(custom_nodes=[{"url": node.url, "optional": True}, {"url": good.url}])
    run = rig.doit("build")
    assert "! custom node alpha (optional) is left out" in run.output
    assert not (rig.comfyui / "custom_nodes" / "alpha").exists()
    assert "toml" in packages(rig)
    node.commit({"requirements.txt": "packaging"}, tag="fixed")
    rig.spec["custom_nodes"][0]["ref"] = "fixed"
    rig.doit("build")
    assert {"packaging", "toml"} <= packages(rig)
    assert (rig.comfyui / "custom_nodes" / "alpha").is_dir()


def test_a_removed_nodes_packages_go_and_the_previous_environment_stays_whole(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("alpha", {"requirements.txt": "toml"})
    rig = machine(custom_nodes=[{"url": node.url}])
    rig.doit("build")
    before = rig.environment
    rig.spec["custom_nodes"] = []
    rig.doit("build")
    assert rig.environment != before
    assert "toml" not in packages(rig)
    subprocess.run([before / "bin" / "python", "-c", "import toml, aiohttp"], check=True)


@pytest.mark.parametrize("name", [environments.LIST, environments.CONSTRAINTS, ".lock"])
def test_what_lies_in_the_place_of_an_environments_own_file_does_not_come_along(
    machine: MachineMaker, forge: Forge, name: str
) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("alpha", {"requirements.txt": "toml"}).url}])
    rig.doit("build")
    own = rig.environment / name
    own.unlink()
    own.symlink_to(name)
    rig.spec["custom_nodes"] = []
    rig.doit("build")
    assert "toml" not in packages(rig)
    assert not (rig.environment / name).is_symlink()


def test_environments_share_native_libraries_and_nothing_that_could_be_patched(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine()
    rig.doit("build")
    before = rig.environment
    rig.spec["custom_nodes"] = [{"url": forge.node("a", {"requirements.txt": "toml"}).url}]
    rig.doit("build")
    shared = linked(rig.environment)
    assert [path for path in shared if not environments.is_native(path.name)] == []
    library = next(path for path in shared if path.name.startswith("_quoting_c."))
    assert library.samefile(before / library.relative_to(rig.environment))


def test_no_environment_shares_a_file_with_uvs_cache_whatever_the_user_sets(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine(custom_nodes=[{"url": forge.node("a", {"requirements.txt": "toml"}).url}])
    rig.doit("build", UV_LINK_MODE="hardlink")
    assert linked(rig.environment) == []


def test_of_an_environment_that_is_linked_with_uvs_cache_nothing_is_shared(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    rig = machine()
    rig.doit("build")
    cached = tmp_path / "cached"
    subprocess.run(["cp", "-al", rig.environment, cached], check=True)
    receipt = digest_folders.read(rig.environment)
    # So it was left by a comfy-machine of before.
    digest_folders.finish(
        rig.environment, {name: receipt[name] for name in receipt if name != "own"}
    )
    rig.spec["custom_nodes"] = [{"url": forge.node("a", {"requirements.txt": "toml"}).url}]
    rig.doit("build")
    assert linked(rig.environment) == []


def test_what_nobody_can_remove_does_not_come_along(machine: MachineMaker, forge: Forge) -> None:
    rig = machine()
    rig.doit("build")
    (site,) = rig.environment.glob("lib/python*/site-packages")
    (site / "by_hand-1.5.dist-info").mkdir()
    assert rig.doit("build").executed == set()
    rig.spec["custom_nodes"] = [{"url": forge.node("a", {"requirements.txt": "toml"}).url}]
    rig.doit("build")
    assert "toml" in packages(rig)
    assert "by_hand" not in packages(rig)


def test_pip_in_a_grown_environment_works_on_that_environment(
    machine: MachineMaker, forge: Forge
) -> None:
    rig = machine()
    rig.doit("build")
    rig.spec["custom_nodes"] = [{"url": forge.node("a", {"requirements.txt": "toml"}).url}]
    rig.doit("build")
    where = subprocess.run(
        [rig.environment / "bin" / "pip", "--version"], check=True, capture_output=True, text=True
    )
    assert str(rig.environment) in where.stdout


def test_an_override_wins_over_what_nodes_ask_for(machine: MachineMaker, forge: Forge) -> None:
    node = forge.node("alpha", {"requirements.txt": "packaging==24.0"})
    rig = machine(
        custom_nodes=[{"url": node.url}], python={"torch": "none", "overrides": ["packaging==24.1"]}
    )
    rig.doit("build")
    assert list(rig.environment.glob("lib/python*/site-packages/packaging-24.1.dist-info"))


def test_with_torch_none_no_node_can_bring_torch_in(machine: MachineMaker, forge: Forge) -> None:
    node = forge.node("alpha", {"requirements.txt": "torch\ntoml\n"})
    rig = machine(custom_nodes=[{"url": node.url}])
    rig.doit("build")
    assert "torch" not in packages(rig)
    assert "toml" in packages(rig)


def test_requirements_false_installs_nothing_for_that_node(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("alpha", {"requirements.txt": "toml"})
    rig = machine(custom_nodes=[{"url": node.url, "requirements": False}])
    rig.doit("build")
    assert "toml" not in packages(rig)


def test_files_with_a_byte_order_mark_and_windows_line_ends_are_read(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("alpha", {"requirements.txt": "\ufefftoml\r\npackaging"})
    rig = machine(custom_nodes=[{"url": node.url}])
    rig.doit("build")
    assert {"toml", "packaging"} <= packages(rig)


def test_requirements_that_change_with_a_ref_are_installed(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("alpha", {"requirements.txt": "-r base.txt\n", "base.txt": "toml\n"})
    rig = machine(custom_nodes=[{"url": node.url}])
    rig.doit("build")
    assert "toml" in packages(rig)
    node.commit({"base.txt": "packaging\n"}, tag="v2")
    rig.spec["custom_nodes"][0]["ref"] = "v2"
    rig.doit("build")
    assert "packaging" in packages(rig)
    node.commit({"requirements.txt": "toml\n"}, tag="v3")
    rig.spec["custom_nodes"][0]["ref"] = "v3"
    rig.doit("build")
    assert "toml" in packages(rig)
    assert "packaging" not in packages(rig)


def test_a_line_that_installs_a_local_folder_is_refused_by_name(
    machine: MachineMaker, forge: Forge
) -> None:
    node = forge.node("alpha", {"requirements.txt": "toml\n-e .\n"})
    rig = machine(custom_nodes=[{"url": node.url}])
    run = rig.doit("build", code=2)
    assert "custom node alpha requires the local '-e .' (requirements.txt:2)" in run.output


def test_an_environment_without_its_interpreter_is_made_anew(machine: MachineMaker) -> None:
    rig = machine()
    rig.doit("build")
    (rig.environment / "bin" / "python").unlink()
    assert "environment" in rig.doit("build").executed
    assert (rig.environment / "bin" / "python").exists()


def test_a_locked_package_that_can_not_be_installed_is_told_with_who_asks_for_it(
    machine: MachineMaker, forge: Forge, tmp_path: Path
) -> None:
    links, name, other = tmp_path / "links", f"gone{UNIQUE}", f"moved{UNIQUE}"
    wheel(links, other, "1.0")
    wheel(links, "bringer", "1.0", (name,))
    gone = wheel(links, name, "1.0")
    asked = {"alpha": f"toml\n{other}\n", "beta": "bringer\n"}
    nodes = [forge.node(each, {"requirements.txt": text}) for each, text in asked.items()]
    python = {"torch": "none", "find_links": [str(links)]}
    rig = machine(custom_nodes=[{"url": each.url} for each in nodes], python=python)
    rig.doit("lock")
    content = json.loads(rig.lock_file.read_text())
    content["python"]["packages"][other]["sha256"] = ["0" * 64]
    rig.lock_file.write_text(json.dumps(content))
    gone.unlink()
    run = rig.doit("environment", code=1)
    assert "the locked packages can't be installed: " in run.output
    assert f"custom node beta's {name} 1.0 (requirements.txt:1) isn't available" in run.output
    assert (
        f"custom node alpha's {other} 1.0 (requirements.txt:2) differs from the file" in run.output
    )
