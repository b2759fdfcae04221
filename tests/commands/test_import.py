"""doit import: a machine.yaml for workflows, from lists and repositories like the real ones."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from comfy_machine.commands.shared.new_machine_file import COMFYUI
from comfy_machine.imports import model_catalogue, node_catalogue
from comfy_machine.spec import Machine, load
from tests.forge import Forge, Repository
from tests.registry import RegistryServer, registry
from tests.rig import SIMULATOR
from tests.test_cli import PROGRAM

GITHUB = "https://github.com"
STARS = {"Kind/Pack": 50, "fork/Pack": 3, "other/tools": 9}
VAE = {"name": "Flux VAE", "type": "VAE", "save_path": "default", "filename": "ae.safetensors",
       "url": "https://example.com/ae.safetensors"}  # fmt: skip


class Home:
    """A person's folder, from which GitHub is the forge."""

    def __init__(self, folder: Path, forge: Forge, served: RegistryServer) -> None:
        self.folder, self.forge, self.registry = folder, forge, served
        self.lists = folder / "lists"
        self.lists.mkdir(parents=True)
        settings = f'[url "{forge.folder.as_uri()}/"]\n\tinsteadOf = {GITHUB}/\n'
        (folder / ".gitconfig").write_text(settings)
        comfyui = forge.copy("Comfy-Org/ComfyUI.git", SIMULATOR)
        comfyui.git("tag", COMFYUI.ref)
        self.packs = {name: self._node(name) for name in STARS}
        self.list({"Kind/Pack": ["Crop", "Both"], "fork/Pack": ["Both"], "other/tools": ["Tool"]})

    def _node(self, name: str) -> Repository:
        return self.forge.node(name)

    def list(self, classes: Mapping[str, list[str]]) -> None:
        known = {f"{GITHUB}/{name}": [each, {}] for name, each in classes.items()}
        stars = {f"{GITHUB}/{name}": {"stars": each} for name, each in STARS.items()}
        for name, document in {
            node_catalogue.CLASSES: known, node_catalogue.STARS: stars,
            node_catalogue.NODES: {"custom_nodes": []}, model_catalogue.MODELS: {"models": [VAE]},
        }.items():  # fmt: skip
            (self.lists / name).write_text(json.dumps(document))

    def workflow(self, name: str, *nodes: dict[str, Any]) -> str:
        file = self.folder / name
        file.write_text(json.dumps({"nodes": [{"id": n, **each} for n, each in enumerate(nodes)]}))
        return name

    def run(self, *words: str, code: int = 0, catalogue: str = "") -> str:
        ended = subprocess.run(
            [str(PROGRAM), "import", "--catalogue", catalogue or str(self.lists), *words],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.folder),
                "LC_ALL": "C.UTF-8",
                "COMFYUI_REGISTRY": self.registry.url,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert ended.returncode == code, ended.stdout
        return ended.stdout

    @property
    def text(self) -> str:
        return (self.folder / "machine.yaml").read_text()

    @property
    def machine(self) -> Machine:
        return load(self.folder / "machine.yaml", {})


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with registry() as served:
        yield Home(tmp_path / "home", Forge(tmp_path / "forge"), served)


def test_what_workflows_use_is_written_with_what_says_so(home: Home) -> None:
    one = home.workflow("one.json", {"type": "Crop"}, {"type": "PreviewAny"}, {"type": "Note"})
    two = home.workflow("two.json", {"type": "Both"})
    said = home.run(one, two)
    assert "1 custom node\n" in said, "ComfyUI's own classes need none"
    (node,) = home.machine.custom_nodes
    assert node.url == f"{GITHUB}/Kind/Pack"
    assert node.ref == home.packs["Kind/Pack"].git("rev-parse", "HEAD")
    assert "  # Crop: no other repository has it\n" in home.text
    assert "  # Both: a guess: several have it, and this one has by far the most stars" in home.text
    assert "  # for one.json, two.json\n" in home.text


def test_files_of_one_name_in_two_folders_are_both_read(home: Home) -> None:
    for name, kind in (("one", "Crop"), ("two", "Tool")):
        (home.folder / name).mkdir()
        home.workflow(f"{name}/a.json", {"type": kind})
    home.run("one/a.json", "two/a.json")
    assert [node.url for node in home.machine.custom_nodes] == [
        f"{GITHUB}/Kind/Pack", f"{GITHUB}/other/tools",
    ]  # fmt: skip


def test_a_name_with_a_line_break_stays_a_comment(home: Home) -> None:
    home.list({"Kind/Pack": ["Crop\nworkspace: gone"]})
    home.run(home.workflow("a.json", {"type": "Crop\nworkspace: gone"}))
    assert home.machine.workspace == home.folder / "workspace"


def test_guesses_are_counted(home: Home) -> None:
    assert "1 custom node, 1 of them a guess" in home.run(home.workflow("a.json", {"type": "Both"}))


def test_the_commit_that_a_workflow_was_made_with_is_kept(home: Home) -> None:
    pack = home.packs["fork/Pack"]
    before = pack.git("rev-parse", "HEAD")
    pack.commit({"more.txt": "later"})
    about = {"aux_id": "fork/Pack", "ver": before}
    home.run(home.workflow("a.json", {"type": "Both", "properties": about}))
    (node,) = home.machine.custom_nodes
    assert (node.url, node.ref) == (f"{GITHUB}/fork/Pack", before)
    assert "Both: the workflow says that it is from here" in home.text


def test_a_version_that_is_no_commit_there_is_named_beside_the_newest(home: Home) -> None:
    about = {"aux_id": "fork/Pack", "ver": "1.2.3"}
    home.run(home.workflow("a.json", {"type": "Both", "properties": about}))
    (node,) = home.machine.custom_nodes
    assert node.ref == home.packs["fork/Pack"].git("rev-parse", "HEAD")
    assert "  # made with 1.2.3\n  # the newest commit\n" in home.text


def test_models_are_written_where_their_loaders_look(home: Home) -> None:
    own = {"name": "x.safetensors", "url": "https://example.com/x", "directory": "loras",
           "hash": "A" * 64, "hash_type": "SHA256"}  # fmt: skip
    name = home.workflow(
        "a.json",
        {"type": "VAELoader", "widgets_values": ["flux\\ae.safetensors"]},
        {
            "type": "LoraLoader",
            "widgets_values": ["x.safetensors"],
            "properties": {"models": [own]},
        },
        {"type": "LoraLoader", "widgets_values": ["mine.safetensors", "https://a/b.safetensors"]},
    )  # fmt: skip
    said = home.run(name, "--catalogue", str(home.lists), code=1)
    files = {each.target: each for each in home.machine.models.files}
    assert set(files) == {"vae/flux/ae.safetensors", "loras/x.safetensors"}
    assert files["loras/x.safetensors"].sha256 == "a" * 64
    assert "    # in ComfyUI-Manager's list\n    # for a.json\n" in home.text
    line = "a.json: node 2 (LoraLoader) loads mine.safetensors: no list says where to get it"
    assert f"  {line}\n" in said
    assert f"# {line}\n" in home.text


def test_what_is_not_known_is_named_and_the_rest_is_written(home: Home) -> None:
    home.list(
        {"Kind/Pack": ["Crop"], "fork/Pack": ["Tie"], "other/tools": ["Tie"], "g/o": ["Gone"]}
    )
    name = home.workflow(
        "a.json", {"type": "Crop"}, {"type": "Private"}, {"type": "Tie"}, {"type": "Gone"}
    )
    said = home.run(name, code=1)
    assert "  a.json: node 1, class Private: no repository in the catalogue has it\n" in said
    assert "  a.json: node 2, class Tie: one of fork/pack, other/tools\n" in said
    assert f"  Gone: {GITHUB}/g/o isn't there: correct the url" in said
    assert [node.url for node in home.machine.custom_nodes] == [f"{GITHUB}/Kind/Pack"]
    assert "# Not known, or missing:\n# a.json: node 1, class Private" in home.text


LISTS = f"{GITHUB}/Comfy-Org/ComfyUI-Manager.git"


def published(home: Home) -> Repository:
    """The lists at GitHub."""
    lists = home.forge.repository("Comfy-Org/ComfyUI-Manager.git")
    for file in home.lists.iterdir():
        lists.commit({file.name: file.read_text()})
    return lists


def test_the_lists_come_from_their_authors_and_are_pinned(home: Home) -> None:
    lists = published(home)
    name = home.workflow("a.json", {"type": "Crop"})
    assert f"fetching {LISTS}\n" in home.run(name, catalogue=LISTS)
    pin = home.machine.lock.catalogue
    assert pin
    assert (pin.url, pin.commit) == (LISTS, lists.git("rev-parse", "HEAD"))

    lists.commit({node_catalogue.CLASSES: "{}"})
    (home.folder / "machine.yaml").unlink()
    said = home.run(name, catalogue=LISTS)
    assert f"using {LISTS} at {pin.commit[:12]}, as pinned\n" in said
    assert len(home.machine.custom_nodes) == 1

    (home.folder / "machine.yaml").unlink()
    said = home.run("--newest", name, catalogue=LISTS, code=1)
    assert "class Crop: no repository in the catalogue has it" in said


def test_without_a_network_the_lists_of_the_last_time_serve(home: Home) -> None:
    published(home)
    name = home.workflow("a.json", {"type": "Crop"})
    home.run(name, catalogue=LISTS)
    for file in ("machine.yaml", "machine.lock"):
        (home.folder / file).unlink()
    home.forge.folder.rename(home.folder / "gone")
    said = home.run(name, catalogue=LISTS)
    assert "using what was fetched last, " in said
    (node,) = home.machine.custom_nodes
    assert (node.url, node.ref) == (f"{GITHUB}/Kind/Pack", None)
    assert "# not reached now: the first build takes the newest\n" in home.text


def test_a_class_that_no_list_has_is_found_in_the_source_of_what_is_used_anyway(home: Home) -> None:
    script = "app.registerNodeType('SetNode', SetNode); // GetNode"
    home.packs["Kind/Pack"].commit({"web/nodes.js": script})
    one = home.workflow("a.json", {"type": "Crop"}, {"type": "SetNode"}, {"type": "GetNode"})
    two = home.workflow("b.json", {"type": "Tool"}, {"type": "SetNode"})
    said = home.run(one, two, code=1)
    assert "  # SetNode: no list has it, and its source names it\n" in home.text
    assert "a.json: node 1, class SetNode" not in said
    assert "a.json: node 2, class GetNode: no repository in the catalogue has it" in said
    assert "b.json: node 1, class SetNode: no repository in the catalogue has it" in said


def test_models_on_this_disk_are_linked(home: Home) -> None:
    for name in ("loras/sub/mine.safetensors", "loras/x.safetensors"):
        (home.folder / "have" / name).parent.mkdir(parents=True, exist_ok=True)
        (home.folder / "have" / name).write_bytes(b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    own = {"name": "x.safetensors", "url": "https://example.com/x", "directory": "loras",
           "hash": digest, "hash_type": "SHA256"}  # fmt: skip
    name = home.workflow(
        "a.json",
        {"type": "Crop", "widgets_values": ["sub\\mine.safetensors"]},
        {"type": "Crop", "properties": {"models": [own]}},
    )
    said = home.run("--models", "have", name)
    assert "  0 models to download, 2 on this disk\n" in said
    assert {each.target: each.source for each in home.machine.models.files} == {
        f"loras/{each}": home.folder / "have/loras" / each
        for each in ("sub/mine.safetensors", "x.safetensors")
    }
    assert "--models gone is no folder" in home.run("--models", "gone", name, "-m", "b", code=1)


def test_a_snapshot_needs_no_lists_and_settles_what_a_workflow_leaves_open(home: Home) -> None:
    commit = home.packs["fork/Pack"].git("rev-parse", "HEAD")
    nodes = {f"{GITHUB}/fork/Pack": {"hash": commit, "disabled": False}}
    snapshot = home.folder / "snapshot.json"
    snapshot.write_text(json.dumps({"comfyui": "1" * 40, "git_custom_nodes": nodes}))
    assert "fetching" not in home.run("snapshot.json")
    assert home.machine.comfyui.ref == "1" * 40
    assert "  # for snapshot.json\n" in home.text

    (home.folder / "machine.yaml").unlink()
    said = home.run("snapshot.json", home.workflow("a.json", {"type": "Both"}), code=1)
    assert (
        f"has no commit {'1' * 40}: correct ref; its classes are taken from {COMFYUI.ref}" in said
    )
    (node,) = home.machine.custom_nodes
    assert (node.url, node.ref) == (f"{GITHUB}/fork/Pack", commit)
    assert "  # Both: of several that have it, the one that is needed anyway\n" in home.text


def test_nothing_is_written_over_or_for_what_is_no_workflow(home: Home) -> None:
    name = home.workflow("a.json", {"type": "Crop"})
    (home.folder / "empty.json").write_text("{}")
    for words, line in {
        ("empty.json",): "import: empty.json is none of the files that import reads: a workflow",
        ("gone.json",): "import: No such file or directory: gone.json",
        (name, "--catalogue", str(home.folder)): "has no custom-node-list.json",
    }.items():
        assert line in home.run(*words, code=1)
        assert not (home.folder / "machine.yaml").exists()
    (home.folder / "machine.yaml").write_text("mine")
    assert "exists, and stays as it is; name another with -m FILE" in home.run(name, code=1)
    assert home.text == "mine"


def test_the_version_that_a_workflow_was_made_with_comes_from_the_registry(home: Home) -> None:
    home.registry.publish("good-pack", "1.2.3")
    home.registry.nodes["good-pack"].repository = f"{GITHUB}/fork/Pack"
    about = {"cnr_id": "good-pack", "ver": "1.2.3"}
    home.run(home.workflow("a.json", {"type": "Both", "properties": about}))
    (node,) = home.machine.custom_nodes
    assert (node.id, node.version, node.url) == ("good-pack", "1.2.3", None)
    assert "Both: the workflow says that it is from here" in home.text


def test_a_version_that_the_registry_refuses_is_replaced_by_the_newest_commit(home: Home) -> None:
    banned = home.registry.publish("bad-pack", "1.2.3")
    banned.status, banned.status_reason = "NodeVersionStatusBanned", "it mines"
    home.registry.nodes["bad-pack"].repository = f"{GITHUB}/fork/Pack"
    about = {"cnr_id": "bad-pack", "ver": "1.2.3"}
    home.run(home.workflow("a.json", {"type": "Both", "properties": about}))
    (node,) = home.machine.custom_nodes
    assert (node.url, node.ref) == (
        f"{GITHUB}/fork/Pack", home.packs["fork/Pack"].git("rev-parse", "HEAD"),
    )  # fmt: skip
    assert 'is banned ("it mines")' in home.text


def test_a_registry_that_fails_is_asked_once_and_missed_by_nothing(home: Home) -> None:
    home.registry.broken = True
    first, second = ({"cnr_id": each, "ver": "1"} for each in ("one-pack", "two-pack"))
    said = home.run(
        home.workflow(
            "a.json", {"type": "Crop", "properties": first}, {"type": "Tool", "properties": second}
        )
    )
    assert said.count("going on without the registry") == 1
    assert [node.url for node in home.machine.custom_nodes] == [
        f"{GITHUB}/Kind/Pack", f"{GITHUB}/other/tools",
    ]  # fmt: skip


def test_workflows_are_named_to_be_proved(home: Home) -> None:
    (home.folder / "sub").mkdir()
    one = home.workflow("a.json", {"type": "Crop"})
    two = home.workflow("sub/a.json", {"type": "Private"})
    job = {"id": {"prompt": [1, "id", {"1": {"class_type": "Tool", "inputs": {}}}, {}, []]}}
    (home.folder / "history.json").write_text(json.dumps(job))
    home.run(one, two, "history.json", code=1)
    found = [(each.name, each.path, each.optional) for each in home.machine.workflows]
    assert found == [
        ("a", home.folder / "a.json", False),
        ("a-2", home.folder / "sub/a.json", True),
        ("history", home.folder / "workflows/history.json", False),
    ]
    written = json.loads((home.folder / "workflows/history.json").read_text())
    assert written == {"1": {"class_type": "Tool", "inputs": {}}}


def test_versions_of_packages_and_arguments_are_taken_over(home: Home) -> None:
    pips = {"Some_Package==1.0": "", "torch==2.5.1+cu121": ""}
    (home.folder / "s.json").write_text(json.dumps({"git_custom_nodes": {}, "pips": pips}))
    command = "python main.py --listen 0.0.0.0 --port 9000 --lowvram --output-directory /out"
    manifest = {"version": 1, "git_repos": [], "services": [{"name": "c", "command": command}]}
    (home.folder / "v.yaml").write_text(json.dumps(manifest))
    said = home.run("s.json", "v.yaml")
    machine = home.machine
    assert {name: each.version for name, each in machine.lock.preferred.items()} == {
        "some-package": "1.0"
    }
    settings = machine.instances
    assert (settings.listen, settings.port_start, settings.args) == (
        "0.0.0.0", 9000, ("--lowvram",),
    )  # fmt: skip
    assert "  --output-directory /out: the machine sets it" in said


def test_what_machine_yaml_refuses_is_named_and_the_rest_is_written(home: Home) -> None:
    url = f"{GITHUB}/a/Pack"
    nodes = [
        {"name": "../up", "url": f"{url}1"},
        {"name": "a\nworkspace: /", "url": f"{url}2"},
        {"name": "twice", "url": f"{url}3"},
        {"name": "Twice", "url": f"{url}4"},
        {"name": "branch", "url": f"{url}5", "branch": "a b"},
        {"name": "quotes", "url": f"{url}6", "custom_script": "echo {{ x }} '\""},
        {"url": "https://me:secret@example.com/a/b"},
    ]
    downloads = [
        {"url": "https://e.com/a.pt", "dest": "/models/vae/../../a.pt"},
        {"url": "https://me:secret@e.com/b.pt", "dest": "/models/vae/b.pt"},
        {"url": "https://e.com/c.pt", "dest": "/models/vae/c.pt"},
    ]
    manifest = {
        "version": 1,
        "git_repos": [{"url": f"{GITHUB}/Comfy-Org/ComfyUI", "dest": "/ComfyUI", "ref": "a b"}],
        "pip_packages": [{"packages": ["--option", "good>1"]}],
        "downloads": downloads,
    }
    (home.folder / "nodes.json").write_text(json.dumps(nodes))
    (home.folder / "manifest.yaml").write_text(json.dumps(manifest))
    said = home.run("nodes.json", "manifest.yaml", code=1)
    machine = home.machine
    assert [node.name for node in machine.custom_nodes] == ["twice", "quotes"]
    assert machine.custom_nodes[1].script == "echo {{ x }} '\""
    assert [each.target for each in machine.models.files] == ["vae/c.pt"]
    assert machine.python.packages == ("good>1",)
    assert machine.comfyui.ref == COMFYUI.ref
    for line in (
        "  custom node ../up: '../up' can't be a folder of custom_nodes",
        "  custom node branch: 'a b' isn't a branch, tag or commit\n",
        "  ComfyUI a b: 'a b' isn't a branch, tag or commit\n",
        "  package --option: must be a requirement such as numpy<2, not an option\n",
        "  model vae/../../a.pt: must stay below the models folder",
    ):
        assert line in said
    assert "secret" not in said + home.text
    assert not [*home.folder.glob(".machine*draft*")]


def test_nothing_gets_out_of_its_line(home: Home) -> None:
    inject = "\n\nworkers:\n  - {name: bad, command: [touch, /tmp/bad]}\n"
    own = {"name": "x.safetensors", "url": "https://example.com/x", "directory": "loras",
           "hash": "a" * 64 + inject, "hash_type": "SHA256"}  # fmt: skip
    name = home.workflow(
        f"a{inject.replace('/', '')}#.json",
        {"type": "Crop", "properties": {"models": [own], "cnr_id": f"b{inject}"}},
        {"type": f"Private{inject}", "properties": {"aux_id": "../up"}},
    )
    command = f"python main.py --port 'a{inject}#' --output-directory '{inject}'"
    manifest = {"version": 1, "git_repos": [], "services": [{"command": command}]}
    (home.folder / "v.yaml").write_text(json.dumps(manifest))
    said = home.run(name, "v.yaml", code=1)
    machine = home.machine
    assert machine.workers == ()
    assert machine.models.files == ()
    assert "model loras/x.safetensors: must be 64 hexadecimal digits" in said
    assert "\nworkers:" not in said
    assert "../up" not in home.text


def test_what_the_machine_needs_itself_is_named_and_left_out(home: Home) -> None:
    command = "python main.py --port 9090 --cuda-device 0,0"
    manifest = {"version": 1, "git_repos": [], "services": [{"command": command}]}
    (home.folder / "v.yaml").write_text(json.dumps(manifest))
    said = home.run("v.yaml", code=1)
    assert "  instances.gpus [0, 0]: GPU 0 is listed twice\n" in said
    assert "  instances.port_start 9090: port 9090 of comfyui-gpu0 is also health.port" in said
    assert home.machine.instances.port_start == 8188


def test_a_failure_leaves_no_workflow_behind(home: Home) -> None:
    job = {"id": {"prompt": [1, "id", {"1": {"class_type": "Crop", "inputs": {}}}, {}, []]}}
    (home.folder / "job.json").write_text(json.dumps(job))
    (home.folder / "workflows").write_text("mine")
    assert "workflows is no folder, and workflows are written there" in home.run("job.json", code=1)
    (home.folder / "workflows").unlink()
    assert "gone is no folder" in home.run("job.json", "-m", "gone/machine.yaml", code=1)
    assert not (home.folder / "workflows").exists()
