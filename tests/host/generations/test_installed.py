"""What is installed against the lock: each kind of damage shows as exactly that."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from comfy_machine.host.comfyui import load_result
from comfy_machine.host.comfyui.load_report import Error
from comfy_machine.host.comfyui.load_result import Outcome, Result, receipt_of
from comfy_machine.host.generations import installed, manifest, reported_changes
from comfy_machine.host.generations.installed import Installed, WantedNode
from comfy_machine.host.generations.left_out_nodes import node_receipt, unmet
from comfy_machine.host.storage import digest_folders
from comfy_machine.host.system import files
from comfy_machine.spec import Asked, Lock, Package, Pin, PythonSet
from comfy_machine.spec.layout import Layout
from comfy_machine.spec.lock_format import Requirements, dumped

AT = {"ComfyUI": "c" * 40, "alpha": "a" * 40, "spare": "5" * 40}
COMFYUI = WantedNode("ComfyUI", url="https://localhost/ComfyUI", ref="v1")
ALPHA = WantedNode("alpha", url="https://localhost/alpha")
SPARE = WantedNode("spare", url="https://localhost/spare", optional=True)
WELL = Result(Outcome.LOADED, 0.1)
ASKED = Asked(python="3.11", platform="linux", torch="none", requirements=Requirements())
PACKAGES = {
    "numpy": Package(version="1.0"),
    "typing-extensions": Package(version="4.1"),
    "from-git": Package(git="https://localhost/g", commit="d" * 40),
}


class World:
    """A current generation as `doit build` leaves it, made by hand."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(folder / "ws")
        self.local = folder / "local"
        self.local.mkdir()
        self.folder = self.layout.generations / "0123"
        self.environment = self.layout.environments / "4567"
        self.site = self.environment / "lib" / "python3.11" / "site-packages"
        self.nodes = [ALPHA, SPARE, WantedNode("local", path=str(self.local))]
        self.lock = Lock(
            comfyui=Pin(url=str(COMFYUI.url), ref="v1", commit=AT["ComfyUI"]),
            custom_nodes={
                node.name: Pin(url=str(node.url), commit=AT[node.name]) for node in (ALPHA, SPARE)
            },
            python=PythonSet(asked=ASKED, packages=PACKAGES),
        )
        self._make_environment()
        self._make_generation()
        files.point(self.layout.state / "current", self.folder)

    def _make_environment(self) -> None:
        for name in ("bin/python", "pyvenv.cfg"):
            (self.environment / name).parent.mkdir(parents=True, exist_ok=True)
            (self.environment / name).write_text("")
        names = ["numpy-1.0.dist-info", "typing_extensions-4.1.dist-info", "From.Git-7.dist-info"]
        for name in [*names, "numpy"]:
            (self.site / name).mkdir(parents=True)
        digest_folders.finish(
            self.environment, {"digest": "4567", "installed": sorted(names), "top": ["numpy"]}
        )

    def _make_generation(self) -> None:
        heads = {self.place(name): commit for name, commit in AT.items()}
        links = {
            "environment": "../../environments/4567",
            "ComfyUI/models": "../../../state/models",
            self.place("local"): str(self.local),
        }
        for place, commit in heads.items():
            (self.folder / place / ".git").mkdir(parents=True)
            (self.folder / place / ".git" / "HEAD").write_text(f"{commit}\n")
            (self.folder / place / "py").mkdir()
            (self.folder / place / "py" / "code.py").write_text("")
        for place, target in links.items():
            files.point(self.folder / place, target)
        files.write_receipt(
            manifest.tracked(self.folder), {place: {"py/code.py": [0, 0]} for place in heads}
        )
        names = ["alpha", "spare", "local"]
        self.receipt: dict[str, Any] = {
            "heads": heads,
            "links": links,
            "nodes": names,
            "scripts": {},
        }
        digest_folders.finish(self.folder, {"digest": "0123", **self.receipt})
        self.validated(dict.fromkeys(names, WELL))

    def place(self, name: str) -> str:
        return name if name == "ComfyUI" else f"ComfyUI/custom_nodes/{name}"

    def at(self, name: str) -> Path:
        return self.folder / self.place(name)

    def validated(self, results: dict[str, Result], unproved: tuple[str, ...] = ()) -> None:
        load_result.write(self.folder, results, unproved)

    def failed(self, name: str, unproved: tuple[str, ...] = ()) -> None:
        bad = Result(Outcome.FAILED, 0.1, Error("ImportError", "no cv2"))
        self.validated({**dict.fromkeys(("alpha", "spare", "local"), WELL), name: bad}, unproved)

    def look(self) -> Installed:
        return installed.look(self.layout, self.lock, COMFYUI, self.nodes)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_is_as_the_lock_says_is_well(world: World) -> None:
    found = world.look()
    assert (found.ok, found.reason, found.degraded, found.generation) == (True, "", (), "0123")
    assert (found.comfyui.commit, found.comfyui.wanted) == (AT["ComfyUI"], AT["ComfyUI"])
    alpha, spare, local = found.nodes
    assert (alpha.ok, alpha.commit, alpha.wanted, alpha.imported) == (
        True, AT["alpha"], AT["alpha"], True,
    )  # fmt: skip
    assert (spare.ok, spare.optional) == (True, True)
    assert (local.ok, local.commit, local.wanted, local.imported) == (True, None, None, True)
    assert (found.packages.ok, found.packages.wanted, found.packages.installed) == (True, 3, 3)


def test_before_the_first_build_nothing_is_installed_yet(tmp_path: Path) -> None:
    found = installed.look(Layout(tmp_path), Lock(), COMFYUI, [ALPHA])
    assert (found.ok, found.reason, found.generation) == (False, "nothing is installed yet", None)
    assert not found.comfyui.ok
    assert (found.nodes[0].ok, found.nodes[0].reason) == (False, "it isn't installed yet")
    assert not found.packages.ok


def edited_head(world: World) -> str:
    (world.at("alpha") / ".git" / "HEAD").write_text("b" * 40)
    return f"custom node alpha: it is at {'b' * 12}, and {'a' * 12} is wanted"


def no_commit(world: World) -> str:
    shutil.rmtree(world.at("alpha") / ".git")
    return "custom node alpha: its folder has no commit"


def no_folder(world: World) -> str:
    shutil.rmtree(world.at("alpha"))
    return "custom node alpha: it isn't in the current generation"


def a_newer_lock(world: World) -> str:
    newer = Pin(url=str(COMFYUI.url), ref="v1", commit="e" * 40)
    world.lock = world.lock.model_copy(update={"comfyui": newer})
    return f"ComfyUI: it is at {'c' * 12}, and {'e' * 12} is wanted"


def an_entry_that_changed(world: World) -> str:
    world.nodes[0] = dataclasses.replace(ALPHA, ref="v2")
    return "custom node alpha: it was not fetched yet, or its entry changed"


def a_new_entry(world: World) -> str:
    world.nodes.append(WantedNode("beta", url="https://localhost/beta"))
    return "custom node beta: it isn't in the current generation"


def missing_code(world: World) -> str:
    shutil.rmtree(world.at("ComfyUI") / "py")
    return "ComfyUI: py/code.py is missing from it"


def missing_code_of_a_node(world: World) -> str:
    (world.at("alpha") / "py" / "code.py").unlink()
    return "custom node alpha: py/code.py is missing from it"


def moved_models(world: World) -> str:
    (world.at("ComfyUI") / "models").unlink()
    return "ComfyUI: its models doesn't point at ../../../state/models"


def lost_local_folder(world: World) -> str:
    world.local.rmdir()
    return f"custom node local: {world.local} is missing"


def re_pointed_local(world: World) -> str:
    world.at("local").unlink()
    world.at("local").symlink_to("/nowhere")
    return f"custom node local: its link points at /nowhere, not at {world.local}"


def failed_import(world: World) -> str:
    world.failed("alpha")
    return "custom node alpha: it doesn't import: ImportError: no cv2"


def nothing_to_load(world: World) -> str:
    world.validated({"alpha": Result(Outcome.EMPTY), "spare": WELL, "local": WELL})
    return "custom node alpha: it was not loaded: it has neither " + (
        "NODE_CLASS_MAPPINGS nor comfy_entrypoint"
    )


def not_validated(world: World) -> str:
    receipt_of(world.folder).unlink()
    return "whether the custom nodes of 0123 import was not tried"


def missing_package(world: World) -> str:
    (world.site / "typing_extensions-4.1.dist-info").rmdir()
    return "Python packages: typing-extensions isn't installed, 4.1 is wanted"


def other_version(world: World) -> str:
    (world.site / "numpy-1.0.dist-info").rename(world.site / "numpy-2.0.dist-info")
    return "Python packages: numpy is 2.0, 1.0 is wanted"


def missing_module(world: World) -> str:
    (world.site / "numpy").rmdir()
    return "Python packages: numpy is missing from 4567"


def no_environment(world: World) -> str:
    shutil.rmtree(world.environment)
    return "Python packages: the environment is gone"


@pytest.mark.parametrize(
    "damage",
    [edited_head, no_commit, no_folder, a_newer_lock, an_entry_that_changed, a_new_entry,
     missing_code, missing_code_of_a_node, moved_models, lost_local_folder, re_pointed_local,
     failed_import, nothing_to_load, not_validated, missing_package, other_version, missing_module,
     no_environment],
)  # fmt: skip
def test_each_damage_shows_as_exactly_that(world: World, damage: Any) -> None:
    assert world.look().ok
    reason = damage(world)
    found = world.look()
    assert (found.ok, found.reason) == (False, reason)
    wrong = [part.name for part in (found.comfyui, *found.nodes) if not part.ok]
    assert len(wrong) + (not found.packages.ok) + (damage is not_validated and 1) == 1


def test_each_wrong_package_is_named(world: World) -> None:
    missing_package(world)
    other_version(world)
    packages = world.look().packages
    assert packages.wrong == {
        "numpy": "is 2.0, 1.0 is wanted",
        "typing-extensions": "isn't installed, 4.1 is wanted",
    }
    assert (packages.wanted, packages.installed) == (3, 1)
    assert packages.reason.endswith(", and 1 more")


def test_what_a_process_moved_or_removed_is_no_damage(world: World) -> None:
    edited_head(world)
    reported_changes.add(world.folder, "alpha", place=world.place("alpha"), head="b" * 40)
    assert world.look().ok
    missing_code_of_a_node(world)
    assert world.look().ok, "at a commit that a process chose nobody knows what belongs there"
    reported_changes.add(world.folder, "alpha", file=f"{world.place('ComfyUI')}/py/code.py")
    missing_code(world)
    assert world.look().ok


def test_a_package_that_was_replaced_is_wrong_by_whoever_did_it(world: World) -> None:
    missing_package(world)
    other_version(world)
    reported_changes.add(
        world.folder, "alpha", gone=["numpy-1.0.dist-info"], new=["numpy-2.0.dist-info"]
    )
    packages = world.look().packages
    said = "is 2.0, 1.0 is wanted (custom node alpha replaced it)"
    assert packages.wrong["numpy"] == said
    assert packages.reason == f"numpy {said}"


def test_optional_nodes_only_degrade(world: World) -> None:
    world.failed("spare")
    found = world.look()
    assert (found.ok, found.reason) == (True, "")
    assert found.degraded == ("custom node spare: it doesn't import: ImportError: no cv2",)
    part = found.nodes[1]
    assert (part.ok, part.imported, part.optional) == (False, False, True)


def test_an_optional_node_that_is_left_out_says_why(world: World) -> None:
    shutil.rmtree(world.at("spare"))
    files.write_receipt(unmet(world.layout), {"spare": "its requirements can't be met"})
    found = world.look()
    assert found.ok
    assert found.degraded == ("custom node spare: it is left out: its requirements can't be met",)
    files.write_receipt(node_receipt(world.layout, "spare"), {"left_out": "no such repository"})
    assert world.look().nodes[1].reason == "it is left out: no such repository"
    assert world.look().nodes[1].ok is False


def test_what_a_build_can_not_prove_is_not_held_against_it(world: World) -> None:
    world.failed("alpha", unproved=("alpha",))
    found = world.look()
    assert (found.ok, found.nodes[0].ok, found.nodes[0].imported) == (True, True, None)
    assert found.degraded == (
        "custom node alpha: whether it imports can't be proved in a build: it doesn't import: "
        "ImportError: no cv2",
    )


def test_comfyuis_own_nodes_that_fail_only_degrade(world: World) -> None:
    world.failed("comfy_extras/nodes_audio.py")
    assert world.look().ok
    assert "comfy_extras/nodes_audio.py doesn't import" in world.look().degraded[0]


def test_without_an_entry_in_the_lock_the_noted_commit_is_wanted(world: World) -> None:
    world.lock = Lock()
    asked = {"url": ALPHA.url, "ref": None}
    receipt = node_receipt(world.layout, "alpha")
    files.write_receipt(receipt, {"asked": asked, "commit": AT["alpha"]})
    assert world.look().nodes[0].ok
    files.write_receipt(receipt, {"asked": asked, "commit": "b" * 40})
    assert f"{'b' * 12} is wanted" in world.look().nodes[0].reason


def test_packages_that_the_last_run_settled_on_for_other_reasons_are_the_wanted_ones(
    world: World,
) -> None:
    other = PythonSet(
        asked=ASKED.model_copy(update={"torch": "cpu"}), packages={"numpy": Package(version="1")}
    )
    files.write_receipt(world.layout.receipts / "python.json", dumped(other))
    assert world.look().packages.wanted == 1
    assert world.look().packages.ok, "1 is 1.0"
    files.write_receipt(
        world.layout.receipts / "python.json",
        dumped(other.model_copy(update={"asked": ASKED})),
    )
    assert world.look().packages.wanted == 3, "the lock is of the same: it is what counts"
    world.lock = Lock()
    (world.layout.receipts / "python.json").unlink()
    assert world.look().packages.reason == "which ones are wanted isn't known"


def test_a_node_whose_own_script_moved_it_is_where_it_belongs(world: World) -> None:
    (world.at("alpha") / ".git" / "HEAD").write_text("b" * 40)
    world.receipt["heads"][world.place("alpha")] = "b" * 40
    digest_folders.finish(world.folder, {"digest": "0123", **world.receipt})
    assert not world.look().nodes[0].ok
    world.receipt["scripts"]["alpha"] = AT["alpha"] + "sh update.sh"
    digest_folders.finish(world.folder, {"digest": "0123", **world.receipt})
    assert world.look().nodes[0].ok


@pytest.mark.parametrize("garbage", ["", "{", "5", "[]", '{"digest": "d", "heads": 5, "links": 5}',
                                     '{"ComfyUI": 5}', '{"nodes": {"alpha": 5}}'])  # fmt: skip
def test_damaged_receipts_are_a_reason_at_most(world: World, garbage: str) -> None:
    receipts = [
        digest_folders.receipt_of(world.folder),
        digest_folders.receipt_of(world.environment),
        receipt_of(world.folder),
        manifest.tracked(world.folder),
        node_receipt(world.layout, "alpha"),
        unmet(world.layout),
        world.layout.receipts / "python.json",
    ]
    for receipt in receipts:
        files.write_text(receipt, garbage)
        world.look()
    files.write_text(world.at("alpha") / ".git" / "HEAD", "\x00\n")
    assert not world.look().ok


def test_what_did_not_change_is_not_read_again(world: World) -> None:
    old = 1_000_000_000
    for path in [*world.layout.machine.rglob("*")][::-1]:
        if not path.is_symlink():
            os.utime(path, (old, old))
    assert world.look().ok
    for receipt in (manifest.tracked(world.folder), receipt_of(world.folder)):
        size = receipt.stat().st_size
        with receipt.open("r+") as file:
            file.write(" " * size)
        os.utime(receipt, (old, old))
    assert world.look().ok, "they are as old and long as they were"
    os.utime(receipt_of(world.folder), (old, old + 1))
    assert world.look().nodes[0].imported is None
