"""Models: each kind of damage shows as exactly that, whatever an instance lists."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from comfy_machine.host.downloads import model_files
from comfy_machine.host.downloads.model_files import (
    ModelState,
    Place,
    WantedModel,
    kinds,
    listed,
    summarize,
)
from comfy_machine.host.downloads.store import stamp
from comfy_machine.host.system import files
from comfy_machine.spec import ModelPin
from comfy_machine.spec.layout import Layout

SHA = "ab" * 32
URL = "https://localhost/x.safetensors"
TARGET = "checkpoints/x.safetensors"
WANTED = WantedModel(TARGET, url=URL)


class World:
    """A models folder with one download, as a run leaves it."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(folder)
        self.models = folder / "models"
        self.store = self.models / ".store"
        self.file = self.store / SHA
        self.link = self.models / TARGET
        self.place = Place(
            self.layout, self.models, self.store, {TARGET: ModelPin(url=URL, sha256=SHA, size=8)}
        )
        self.store.mkdir(parents=True)
        self.file.write_bytes(b"contents")
        files.point(self.link, f"../.store/{SHA}")
        self.note(TARGET, {"url": URL, "sha256": SHA, **self.stamped()})

    def stamped(self) -> dict[str, int]:
        size, mtime = stamp(self.file) or (0, 0)
        return {"size": size, "mtime": mtime}

    def note(self, target: str, entry: object) -> None:
        receipt = model_files.receipt_of(self.layout)
        files.write_receipt(receipt, {"models": {target: entry}})

    def look(self, model: WantedModel = WANTED) -> ModelState:
        return model_files.look(self.place, [model])[model.target]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_download_that_is_as_it_was_when_it_was_verified_is_well(world: World) -> None:
    assert world.look() == ModelState(TARGET, True, present=True, verified=True, size=8)


def test_none_declared_is_healthy(world: World) -> None:
    found = summarize(model_files.look(world.place, []), {"checkpoints": []})
    assert (found.ok, found.reason, found.wrong) == (True, "", {})


def dangling(world: World) -> str:
    world.file.unlink()
    return f"the link dangles: {world.file} isn't there"


def missing(world: World) -> str:
    world.link.unlink()
    return "it isn't there"


def replaced(world: World) -> str:
    world.file.write_bytes(b"other, and longer")
    return "it was changed since it was verified"


def found_wrong_by_verify(world: World) -> str:
    os.utime(world.file, (0, 0))
    return "it was changed since it was verified"


def truncated(world: World) -> str:
    world.file.write_bytes(b"con")
    return "it is truncated: 3 of 8 bytes"


def emptied(world: World) -> str:
    world.file.write_bytes(b"")
    return "it is empty (0 bytes)"


def re_pointed(world: World) -> str:
    other = world.models / "other"
    other.write_bytes(b"contents")
    world.link.unlink()
    world.link.symlink_to(other)
    return f"its link points at {other}, not at ../.store/{SHA}"


def in_the_way(world: World) -> str:
    world.link.unlink()
    world.link.write_bytes(b"contents")
    return "it isn't a link, but a file or folder"


def unknown(world: World) -> str:
    model_files.receipt_of(world.layout).unlink()
    return "it was not verified here yet"


def a_lock_that_moved(world: World) -> str:
    newer = {TARGET: ModelPin(url=URL, sha256="cd" * 32)}
    world.place = Place(world.layout, world.models, world.store, newer)
    return f"its link points at ../.store/{SHA}, not at ../.store/{'cd' * 32}"


def a_loop(world: World) -> str:
    world.link.unlink()
    world.link.symlink_to(world.link)
    return "it can't be read: Too many levels of symbolic links"


@pytest.mark.parametrize(
    "damage",
    [dangling, missing, replaced, found_wrong_by_verify, truncated, emptied, re_pointed,
     in_the_way, unknown, a_lock_that_moved, a_loop],
)  # fmt: skip
def test_each_damage_shows_as_exactly_that(world: World, damage: Any) -> None:
    reason = damage(world)
    found = world.look()
    assert (found.ok, found.verified, found.reason) == (False, False, reason)
    assert found.present == (damage not in (dangling, missing, a_loop))


def test_a_download_whose_sha256_nobody_knows_was_never_fetched(world: World) -> None:
    model_files.receipt_of(world.layout).unlink()
    world.place = Place(world.layout, world.models, world.store, {})
    assert world.look().reason == "its sha256 isn't known: the lock doesn't have it"
    told = WantedModel(TARGET, url=URL, sha256="cd" * 32)
    assert world.look(told).reason.startswith("its link points at")


def test_what_another_machine_verified_in_a_shared_store_counts(world: World) -> None:
    model_files.receipt_of(world.layout).unlink()
    files.write_receipt(world.store / f"{SHA}.json", world.stamped())
    assert world.look().ok


@pytest.mark.parametrize("garbage", [5, [], {"sha256": SHA}, {"size": "x", "sha256": SHA}])
def test_damaged_notes_are_a_reason_and_no_error(world: World, garbage: object) -> None:
    world.note(TARGET, garbage)
    assert not world.look().ok
    model_files.receipt_of(world.layout).write_text("{")
    assert not world.look().ok


def test_a_source_is_well_when_it_can_be_read_and_is_not_empty(
    world: World, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    file = disk / "y.safetensors"
    model = WantedModel("loras/y.safetensors", source=str(file), optional=True)
    assert world.look(model) == ModelState(
        model.target, False, f"{file} isn't there", optional=True
    )
    disk.mkdir()
    file.write_bytes(b"weights")
    assert world.look(model).reason == "it isn't linked yet"
    files.point(world.models / model.target, file)
    assert world.look(model) == ModelState(
        model.target, True, optional=True, present=True, verified=True, size=7
    )
    file.write_bytes(b"")
    assert world.look(model).reason == "it is empty (0 bytes)"
    disk.rename(tmp_path / "unmounted")
    assert world.look(model).reason == f"the link dangles: {file} isn't there"


def test_a_source_with_a_sha256_is_held_to_it(world: World, tmp_path: Path) -> None:
    file = tmp_path / "y.safetensors"
    file.write_bytes(b"weights")
    model = WantedModel("loras/y.safetensors", source=str(file), sha256=SHA)
    files.point(world.models / model.target, file)
    links = world.layout.state / "links.json"
    files.write_receipt(links, {"verified": {str(file): [SHA, *(stamp(file) or ())]}})
    assert world.look(model).verified
    os.utime(file, (0, 0))
    assert world.look(model).reason == "it was not verified as it is now"


def test_a_folder_may_be_a_source(world: World, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    pack.mkdir()
    model = WantedModel("diffusers/pack", source=str(pack))
    files.point(world.models / model.target, pack)
    assert world.look(model).reason == "the folder is empty"
    (pack / "a.safetensors").write_bytes(b"a")
    assert world.look(model) == ModelState(model.target, True, present=True, verified=True)


def test_a_listed_but_dangling_model_is_exactly_that(world: World) -> None:
    world.file.unlink()
    found = summarize({TARGET: world.look()}, {"checkpoints": ["x.safetensors"]})
    assert not found.ok
    assert found.wrong[TARGET] == (
        f"the link dangles: {world.file} isn't there; the instance lists it all the same"
    )


def test_what_an_instance_does_not_list_is_wrong_for_that_instance(world: World) -> None:
    states = {TARGET: world.look()}
    assert summarize(states, {"checkpoints": ["z.safetensors"]}).reason == (
        f"{TARGET}: the instance doesn't list it"
    )
    assert summarize(states, {"checkpoints": ["x.safetensors"]}).ok
    assert summarize(states, {}).ok, "it answers 404"
    assert summarize(states).ok, "it was not asked"


def test_optional_models_only_degrade(world: World) -> None:
    world.file.unlink()
    optional = ModelState("loras/o.pt", False, "it isn't there", optional=True)
    found = summarize({"loras/o.pt": optional})
    assert (found.ok, found.wrong) == (True, {"loras/o.pt": "it isn't there"})
    both = summarize({"loras/o.pt": optional, TARGET: world.look()})
    assert (both.ok, set(both.wrong)) == (False, {"loras/o.pt", TARGET})
    assert both.reason.startswith(f"{TARGET}: the link dangles")


def test_what_a_listing_says_of_a_target() -> None:
    listing = {
        "clip": ["t5/x.safetensors"],
        "unet": [],
        "loras": ["pack/a.safetensors", "notes.gguf"],
    }
    for target, told in {
        "clip/t5/x.safetensors": True,
        "text_encoders/t5/x.safetensors": None,
        "unet/u.SFT": False,
        "unet/u.gguf": None,
        "loras/notes.gguf": True,
        "loras/pack": True,
        "loras/other": None,
        "checkpoints/x.safetensors": None,
        "beside.safetensors": None,
    }.items():
        assert listed(listing, target) is told, target


def test_an_instance_says_itself_which_folder_type_looks_into_a_folder() -> None:
    targets = ["unet/u.sft", "clip/x.pt", "beside.pt", "clip/y.pt", "mine/z.pt", "loras/l.pt"]
    paths = {
        "diffusion_models": ["/m/unet", "/m/diffusion_models"],
        "text_encoders": ["/m/text_encoders", "/m/clip"],
        "clip_of_a_node": ["/m/clip"],
        "odd": 5,
        "all": ["/m/loras"],
        "loras": ["/m/loras"],
    }
    found = {"clip": "text_encoders", "loras": "loras", "mine": "mine", "unet": "diffusion_models"}
    assert kinds(targets, paths) == found
    names = ["clip", "loras", "mine", "unet"]
    assert kinds(targets, None) == dict(zip(names, names, strict=True))
