from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from comfy_machine.spec import SpecError, expand
from tests.spec.conftest import Load

ROOT = Path(__file__).parents[2]


def test_two_fields_make_a_machine(read: Load, folder: Path) -> None:
    machine = read()
    assert machine.file == folder / "machine.yaml"
    assert machine.workspace == folder / "ws"
    assert machine.comfyui.repo == "https://github.com/Comfy-Org/ComfyUI.git"
    assert machine.comfyui.install_path == folder / "ws/ComfyUI"
    assert machine.models.folder == folder / "ws/shared/models"
    assert (machine.enabled, machine.selected_nodes) == (True, None)
    assert machine.health.timeout == 300


def test_every_path_is_made_absolute_once(read: Load, folder: Path) -> None:
    text = """comfyui: {path: ../src/./ComfyUI, install_path: a/../b}
workspace: ./deep/../ws/
custom_nodes: [{path: ../My-Node}, {path: ~/dev/other, name: mine}]
python: {find_links: [wheels, ~/w, "https://host/wheels"]}
models:
  folder: ~/models
  extra_roots: [{path: more, read_only: true}]
  files: [{target: a/./b.safetensors, source: x/y}, {target: c, source: /abs}]
"""
    machine = read(text, minimal="")
    assert machine.comfyui.path == folder.parent / "src/ComfyUI"
    assert machine.comfyui.repo is None
    assert machine.comfyui.install_path == folder / "ws/b"
    assert machine.workspace == folder / "ws"
    assert [(node.name, node.path) for node in machine.custom_nodes] == [
        ("My-Node", folder.parent / "My-Node"),
        ("mine", Path("/home/me/dev/other")),
    ]
    assert machine.python.find_links == (
        str(folder / "wheels"),
        "/home/me/w",
        "https://host/wheels",
    )
    assert machine.models.folder == Path("/home/me/models")
    assert machine.models.extra_roots[0].path == folder / "ws/more"
    assert [(file.target, file.source) for file in machine.models.files] == [
        ("a/b.safetensors", folder / "ws/x/y"),
        ("c", Path("/abs")),
    ]


def test_a_home_that_is_not_known_is_a_problem(read: Load) -> None:
    with pytest.raises(SpecError, match=r"begins with ~, but HOME is not set"):
        read("models: {folder: ~/m}", HOME="")


def test_a_workspace_has_one_name_through_whatever_link_it_is_reached(
    read: Load, folder: Path
) -> None:
    (folder / "real").mkdir()
    (folder / "ws").symlink_to("real")
    assert read().workspace == folder / "real"


def test_a_url_that_was_a_page_gives_the_ref(read: Load) -> None:
    (node,) = read(
        "custom_nodes: [{url: 'git clone https://github.com/owner/Node/tree/dev'}]"
    ).custom_nodes
    assert (node.url, node.ref, node.name) == ("https://github.com/owner/Node", "dev", "Node")


@pytest.mark.parametrize(
    ("instances", "gpu_count", "gpus"),
    [
        ("{}", 3, [0, 1, 2]),
        ("{}", 0, []),
        ("{gpus: 2}", 8, [0, 1]),
        ("{gpus: [2, 0]}", 0, [2, 0]),
        ("{cpu_only: true}", 0, [0]),
        ("{cpu_only: true}", 4, [0]),
        ("{cpu_only: true, gpus: 2}", 0, [0, 1]),
    ],
)
def test_there_is_one_instance_for_each_gpu(
    read: Load, instances: str, gpu_count: int, gpus: list[int]
) -> None:
    found = read(f"instances: {instances}").instances_for(gpu_count)
    assert [instance.gpu for instance in found] == gpus
    assert [instance.name for instance in found] == [f"comfyui-gpu{gpu}" for gpu in gpus]
    assert [instance.port for instance in found] == [8188 + gpu for gpu in gpus]


def test_a_disabled_machine_has_no_instance(read: Load) -> None:
    assert read(ENABLE_COMFYUI="false").instances_for(4) == ()


def test_an_override_adds_to_what_all_instances_have(read: Load) -> None:
    first, second = read(
        """instances:
  gpus: 2
  listen: 0.0.0.0
  args: [--fast]
  env: {A: "1", B: "${TOKEN}"}
  overrides: {1: {args: [--lowvram], port: 8300, env: {A: "2"}}}
"""
    ).instances_for(0)
    assert (first.port, first.args, first.env) == (8188, ("--fast",), {"A": "1", "B": "${TOKEN}"})
    assert (second.port, second.args) == (8300, ("--fast", "--lowvram"))
    assert second.env == {"A": "2", "B": "${TOKEN}"}
    assert second.listen == "0.0.0.0"


def test_variables_are_expanded_from_the_machine_s_environment() -> None:
    assert expand("a${X}b$Y${Z_1}", {"X": "1", "Z_1": "${X}"}) == "a1b$Y${X}"
    with pytest.raises(KeyError, match="NONE"):
        expand("${NONE}", {})


def test_reading_a_machine_loads_nothing_heavy() -> None:
    code = (
        "import sys; from pathlib import Path; from comfy_machine.spec import load\n"
        "load(Path('machine.yaml'), {})\n"
        "heavy = {'doit', 'git', 'requests', 'jinja2', 'pynvml', 'rich', 'fastapi', 'difflib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"
