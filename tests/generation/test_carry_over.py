"""What outlives a generation."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from comfy_machine.generation import carry_over
from comfy_machine.host.generations import manifest, reported_changes
from comfy_machine.host.repositories import git
from comfy_machine.host.storage import digest_folders
from comfy_machine.host.system import files
from tests.forge import Forge, Repository

KEPT = "ComfyUI/custom_nodes/kept"


@dataclass
class Generations:
    """Two assembled ones: ComfyUI with the custom nodes that each declares."""

    old: Path
    new: Path
    left: Path
    not_carried: list[str] = field(default_factory=list)

    def carry(self, old: set[str], new: set[str]) -> None:
        self.not_carried = list(carry_over.carry(self.old, self.new, old, new, self.left))


def write(file: Path, text: str = "written") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def assemble(folder: Path, nodes: dict[str, str]) -> Path:
    comfyui = Forge(folder).repository(
        "ComfyUI", {".gitignore": "/custom_nodes/\n/output/\n", "main.py": "", "user/own": "x"}
    )
    for name, version in nodes.items():
        Forge(comfyui.folder / "custom_nodes").repository(
            name, {"__init__.py": "", "version": version, ".gitignore": "cache/"}
        )
    return comfyui.folder


@pytest.fixture
def generations(tmp_path: Path) -> Generations:
    return Generations(
        old=assemble(tmp_path / "gen1", {"kept": "1", "gone": "1"}),
        new=assemble(tmp_path / "gen2", {"kept": "2"}),
        left=tmp_path / "left",
    )


def listing(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if ".git" not in path.relative_to(folder).parts and not path.is_dir()
    }


def test_untracked_and_ignored_files_come_along(generations: Generations) -> None:
    for name in ("output/a.png", "user/default/settings.json", "custom_nodes/kept/cache/x.bin",
                 "custom_nodes/kept/config ü.json"):  # fmt: skip
        write(generations.old / name, name)
    before = listing(generations.new)
    generations.carry({"kept", "gone"}, {"kept"})
    assert listing(generations.new) - before == {
        "output/a.png", "user/default/settings.json", "custom_nodes/kept/cache/x.bin",
        "custom_nodes/kept/config ü.json",
    }  # fmt: skip
    assert (generations.new / "custom_nodes/kept/version").read_text() == "2"
    assert (generations.old / "output/a.png").read_text() == "output/a.png"


def test_bytecode_and_env_files_stay(generations: Generations) -> None:
    for name in ("__pycache__/main.pyc", "stray.pyc", ".env", "custom_nodes/kept/.env",
                 "custom_nodes/kept/__pycache__/x.pyc"):  # fmt: skip
        write(generations.old / name)
    before = listing(generations.new)
    generations.carry({"kept", "gone"}, {"kept"})
    assert listing(generations.new) == before


def test_a_link_into_the_old_generation_stays_and_others_come(
    generations: Generations, tmp_path: Path
) -> None:
    outside = write(tmp_path / "outside")
    (generations.old / "inner").symlink_to(generations.old / "main.py")
    (generations.old / "outer").symlink_to(outside)
    generations.carry({"kept"}, {"kept"})
    assert not (generations.new / "inner").is_symlink()
    assert (generations.new / "outer").readlink() == outside


def test_nothing_is_overwritten(generations: Generations) -> None:
    write(generations.old / "both", "old")
    write(generations.new / "both", "new")
    (generations.old / "dangling").symlink_to("/old")
    (generations.new / "dangling").symlink_to("/nowhere")
    write(generations.old / "custom_nodes/kept/data", "old")
    write(generations.new / "custom_nodes/kept/data", "new")
    generations.carry({"kept"}, {"kept"})
    assert (generations.new / "both").read_text() == "new"
    assert str((generations.new / "dangling").readlink()) == "/nowhere"
    assert (generations.new / "custom_nodes/kept/data").read_text() == "new"


def test_the_models_stay_where_they_are(generations: Generations) -> None:
    write(generations.old / "models/checkpoints/big.safetensors")
    generations.carry({"kept"}, {"kept"})
    assert not (generations.new / "models").exists()


def test_a_removed_nodes_own_files_go_to_left(generations: Generations) -> None:
    write(generations.old / "custom_nodes/gone/cache/db.sqlite", "mine")
    generations.carry({"kept", "gone"}, {"kept"})
    assert (generations.left / "gone/cache/db.sqlite").read_text() == "mine"
    assert listing(generations.left) == {"gone/cache/db.sqlite"}, "its code doesn't"
    assert not (generations.new / "custom_nodes/gone").exists()


def test_a_node_installed_by_hand_comes_along_whole(generations: Generations) -> None:
    write(generations.old / "custom_nodes/plain/__init__.py")
    cloned = Forge(generations.old / "custom_nodes").repository("cloned", {"__init__.py": "x"})
    write(cloned.folder / "data")
    generations.carry({"kept", "gone"}, {"kept"})
    assert (generations.new / "custom_nodes/plain/__init__.py").read_text() == "written"
    there = Repository(generations.new / "custom_nodes/cloned")
    assert there.git("rev-parse", "HEAD") == cloned.git("rev-parse", "HEAD")
    assert (there.folder / "data").is_file()


def test_a_linked_node_is_left_alone(generations: Generations, tmp_path: Path) -> None:
    own = Forge(tmp_path / "elsewhere").node("mine")
    write(own.folder / "data")
    for comfyui in (generations.old, generations.new):
        (comfyui / "custom_nodes" / "mine").symlink_to(own.folder)
    before = listing(own.folder)
    generations.carry({"kept", "mine"}, {"kept", "mine"})
    generations.carry({"kept", "mine"}, {"kept"})
    assert listing(own.folder) == before
    assert not (generations.left / "mine").exists()


def test_a_node_that_became_a_link_gets_nothing_written(
    generations: Generations, tmp_path: Path
) -> None:
    own = Forge(tmp_path / "elsewhere").node("kept")
    write(generations.old / "custom_nodes/kept/data")
    target = generations.new / "custom_nodes" / "kept"
    target.rename(tmp_path / "away")
    target.symlink_to(own.folder)
    generations.carry({"kept"}, {"kept"})
    assert not (own.folder / "data").exists()


def test_a_link_into_the_old_generation_stays_wherever_it_is(generations: Generations) -> None:
    (generations.old / "custom_nodes/kept/web").symlink_to(generations.old / "main.py")
    (generations.old / "env").symlink_to(generations.old.parent / "environment")
    generations.carry({"kept"}, {"kept"})
    assert not (generations.new / "custom_nodes/kept/web").is_symlink()
    assert not (generations.new / "env").is_symlink()


def test_a_cloned_nodes_bytecode_and_env_stay(generations: Generations) -> None:
    node = Forge(generations.old / "custom_nodes").repository("cloned", {"__init__.py": "x"})
    write(node.folder / "__pycache__/x.pyc")
    write(node.folder / ".env")
    generations.carry({"kept", "gone"}, {"kept"})
    assert (generations.new / "custom_nodes/cloned/__init__.py").is_file()
    assert not (generations.new / "custom_nodes/cloned/__pycache__").exists()
    assert not (generations.new / "custom_nodes/cloned/.env").exists()


def test_of_the_same_commit_what_python_compiled_comes_along(generations: Generations) -> None:
    compiled = "__pycache__/__init__.cpython-311.pyc"
    for place in ("comfy", "custom_nodes/kept/inner", "custom_nodes/gone", "models"):
        write(generations.old / place / compiled)
    (generations.new / "comfy").mkdir()
    (generations.new / "custom_nodes/kept/inner").mkdir()
    before, now = generations.old, generations.new
    carry_over.carry_bytecode(before, now, [".", "custom_nodes/kept", "custom_nodes/gone"])
    assert (generations.new / "comfy" / compiled).is_file()
    assert (generations.new / "custom_nodes/kept/inner" / compiled).is_file()
    assert not (generations.new / "custom_nodes/gone").exists()
    assert not (generations.new / "models" / compiled).exists()


class Rewriting:
    """Two generations of one custom node that keeps settings in files of its repository."""

    def __init__(self, folder: Path) -> None:
        self.left = folder / "left"
        self.place = "ComfyUI/custom_nodes/alpha"
        self.old, self.new = folder / "1", folder / "2"
        of = {"a.json": "{}", "b.json": "{}", "code.py": "1", "gone.json": "{}"}
        source = Forge(folder / "source").repository("alpha", {**of})
        self.head = str(git.head(source.folder))
        files.copy_tree(source.folder, self.old / self.place)
        source.commit({"b.json": '{"new": 1}', "code.py": "2", "gone.json": None})
        files.copy_tree(source.folder, self.new / self.place)

    def carry(self, *names: str, whole: bool = False) -> list[str]:
        for name in names:
            reported_changes.add(self.old, "alpha", file=f"{self.place}/{name}")
        heads = {self.place: self.head}
        places = [self.place] if whole else []
        found = carry_over.carry_rewritten(
            self.old, self.new, {self.place: names}, heads, places, self.left
        )
        return list(found)

    def old_file(self, name: str) -> Path:
        return self.old / self.place / name

    def new_text(self, name: str) -> str:
        return (self.new / self.place / name).read_text()


@pytest.fixture
def rewriting(tmp_path: Path) -> Rewriting:
    return Rewriting(tmp_path)


def test_settings_in_a_tracked_file_survive_an_update(rewriting: Rewriting) -> None:
    rewriting.old_file("a.json").write_text('{"mine": 1}')
    assert rewriting.carry("a.json") == []
    assert rewriting.new_text("a.json") == '{"mine": 1}'
    own = reported_changes.read(rewriting.new)
    assert own.files == {f"{rewriting.place}/a.json": "alpha"}, "and the next update too"
    assert not rewriting.left.exists()


def test_what_a_newer_commit_changed_itself_is_kept_aside(rewriting: Rewriting) -> None:
    for name in ("b.json", "code.py", "gone.json"):
        rewriting.old_file(name).write_text("mine")
    (said,) = rewriting.carry("b.json", "code.py", "gone.json")
    assert said == (
        "custom node alpha: a process had rewritten b.json, code.py, gone.json; the old content "
        f"is in {rewriting.left / 'alpha'}"
    )
    assert (rewriting.new_text("b.json"), rewriting.new_text("code.py")) == ('{"new": 1}', "2")
    for name in ("b.json", "code.py", "gone.json"):
        assert (rewriting.left / "alpha" / name).read_text() == "mine"
    assert reported_changes.read(rewriting.new) == reported_changes.Changes()
    assert rewriting.carry("b.json") == [], "it lies there already"
    rewriting.old_file("b.json").write_text("later")
    assert rewriting.carry("b.json") != []
    assert (rewriting.left / "alpha" / "b.json.2").read_text() == "later"


def test_code_is_never_carried_though_its_commit_is_the_same(rewriting: Rewriting) -> None:
    files.remove(rewriting.new / rewriting.place)
    files.copy_tree(rewriting.old / rewriting.place, rewriting.new / rewriting.place)
    rewriting.old_file("code.py").write_text("patched")
    assert rewriting.carry("code.py") != []
    assert rewriting.new_text("code.py") == "1"


def test_a_node_that_came_whole_has_its_settings_noted_again(rewriting: Rewriting) -> None:
    rewriting.old_file("a.json").write_text('{"mine": 1}')
    files.remove(rewriting.new / rewriting.place)
    files.copy_tree(rewriting.old / rewriting.place, rewriting.new / rewriting.place)
    assert rewriting.carry("a.json", whole=True) == []
    assert reported_changes.read(rewriting.new).files == {f"{rewriting.place}/a.json": "alpha"}


def test_tracked_files_that_a_script_moved_are_not_the_users(generations: Generations) -> None:
    node = generations.old / "custom_nodes/kept"
    Repository(node).commit({"S/a.py": "code", "S/lib/b.py": "more"})
    (node / "S" / "a.py").rename(node / "a.py")
    (node / "S" / "lib").rename(node / "lib")
    write(node / "weights.bin", "code"[::-1])
    write(node / "lib" / "cache", "mine")
    before = listing(generations.new)
    generations.carry({"kept", "gone"}, {"kept"})
    assert listing(generations.new) - before == {
        "custom_nodes/kept/weights.bin", "custom_nodes/kept/lib/cache",
    }  # fmt: skip


@pytest.mark.parametrize("damage", ["HEAD", "index", ""])
def test_what_was_written_is_carried_over_from_where_git_can_not_read(
    generations: Generations, damage: str
) -> None:
    old = generations.old
    heads = {place: git.head(old.parent / place) for place in ("ComfyUI", KEPT)}
    digest_folders.finish(
        old.parent, {"digest": "1", "heads": heads, "nodes": ["kept", "gone"], "links": {}}
    )
    manifest.stamp(old.parent)
    write(old / "styles.csv")
    write(old / "custom_nodes" / "by_hand" / "__init__.py")
    write(old / "custom_nodes" / "kept" / "cache" / "weights.bin")
    for folder in (old, old / "custom_nodes" / "kept"):
        if damage:
            (folder / ".git" / damage).write_bytes(b"rubbish")
        else:
            shutil.rmtree(folder / ".git")
    generations.carry({"kept"}, {"kept"})
    assert generations.not_carried == []
    new = generations.new
    assert (new / "styles.csv").read_text() == "written"
    assert (new / "custom_nodes" / "by_hand" / "__init__.py").is_file()
    assert (new / "custom_nodes" / "kept" / "cache" / "weights.bin").is_file()
    assert (new / "custom_nodes" / "kept" / "version").read_text() == "2"


def test_where_nothing_tells_what_was_written_a_line_says_so(generations: Generations) -> None:
    shutil.rmtree(generations.old / "custom_nodes" / "kept" / ".git")
    write(generations.old / "styles.csv")
    generations.carry({"kept"}, {"kept"})
    (line,) = generations.not_carried
    assert str(generations.old / "custom_nodes" / "kept") in line
    assert (generations.new / "styles.csv").is_file()


def test_a_folder_that_is_a_file_in_the_next_version_does_not_stop_it(
    generations: Generations,
) -> None:
    write(generations.old / "custom_nodes" / "kept" / "notes" / "mine.txt")
    write(generations.new / "custom_nodes" / "kept" / "notes", "now a file")
    generations.carry({"kept"}, {"kept"})
    (line,) = generations.not_carried
    assert "notes is no folder there" in line
    assert (generations.new / "custom_nodes" / "kept" / "notes").read_text() == "now a file"
