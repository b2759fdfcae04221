from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from comfy_machine.spec import SpecError, load
from tests.spec.conftest import Lines, Load

GPUS = "must be auto, a number of GPUs, or a list of their indices such as [0, 2]"
NODES = """custom_nodes:
  - url: https://github.com/owner/First-Node
  - {url: https://github.com/owner/other.git, name: second}
"""


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("ENABLE_COMFYUI", "false", "enabled", False),
        ("ENABLE_COMFYUI", "True", "enabled", True),
        ("ENABLE_COMFYUI", "0", "enabled", False),
        ("ENABLE_COMFYUI", "", "enabled", True),
        ("NUM_GPUS", "2", "instances.gpus", 2),
        ("NUM_GPUS", " auto ", "instances.gpus", "auto"),
        ("NUM_GPUS", "", "instances.gpus", 4),
        ("COMFYUI_CPU_ONLY", "1", "instances.cpu_only", True),
        ("COMFYUI_CPU_ONLY", "no", "instances.cpu_only", False),
        ("COMFYUI_PORT_START", "9000", "instances.port_start", 9000),
        ("COMFYUI_LISTEN", "0.0.0.0", "instances.listen", "0.0.0.0"),
        ("HEALTH_LISTEN", "0.0.0.0", "health.listen", "0.0.0.0"),
        ("HEALTH_TOKEN", "secret", "health.token", "${HEALTH_TOKEN}"),
        ("HEALTH_TOKEN", "", "health.token", None),
        ("COMFYUI_INSTALL_PATH", "/opt/comfy", "comfyui.install_path", Path("/opt/comfy")),
        ("COMFYUI_MODELS_PATH", "/mnt/m", "models.folder", Path("/mnt/m")),
        ("COMFYUI_MODELS_PATH", "~/m", "models.folder", Path("/home/me/m")),
        ("COMFYUI_REPO", "https://host/fork/", "comfyui.repo", "https://host/fork"),
        ("WORKSPACE_PATH", "/srv/ws", "workspace", Path("/srv/ws")),
        ("WORKSPACE_PATH", "/srv/ws", "models.folder", Path("/srv/ws/shared/models")),
    ],
)
def test_the_environment_wins_over_the_file(
    read: Load, name: str, value: str, field: str, expected: object
) -> None:
    found: Any = read("instances: {gpus: 4}", **{name: value})
    for part in field.split("."):
        found = getattr(found, part)
    assert found == expected


def test_a_token_that_the_file_names_stays(read: Load) -> None:
    machine = read('health: {token: "${OURS}"}', HEALTH_TOKEN="secret")
    assert machine.health.token == "${OURS}"


def test_paths_of_the_environment_are_relative_as_those_of_the_file(
    read: Load, folder: Path
) -> None:
    machine = read(WORKSPACE_PATH="there", COMFYUI_MODELS_PATH="m", COMFYUI_INSTALL_PATH="c")
    assert machine.workspace == folder / "there"
    assert machine.models.folder == folder / "there/m"
    assert machine.comfyui.install_path == folder / "there/c"


def test_a_workspace_from_the_environment_is_enough(read: Load) -> None:
    assert read(minimal="comfyui: {}\n", WORKSPACE_PATH="/srv/ws").workspace == Path("/srv/ws")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ENABLE_COMFYUI", "maybe", "must be true or false"),
        ("NUM_GPUS", "two", GPUS),
        ("NUM_GPUS", "-1", GPUS),
        ("NUM_GPUS", "0,1", GPUS),
        ("NUM_GPUS", "0", "at least one: without a GPU set instances.cpu_only, and to start "
         "nothing the variable ENABLE_COMFYUI=false"),
        ("COMFYUI_CPU_ONLY", "maybe", "must be true or false"),
        ("COMFYUI_PORT_START", "80a", "must be a whole number"),
        ("COMFYUI_PORT_START", "70000", "must be at most 65535"),
        ("COMFYUI_REPO", "owner/repo", "this isn't a git URL: write https://github.com/owner/repo"),
        ("COMFYUI_MODELS_PATH", "${HOME}/m", "${…} is understood in env values only"),
        ("COMFYUI_MODELS_PATH", "ComfyUI",
         "and comfyui.install_path must not lie in one another"),
        ("COMFYUI_INSTALL_PATH", "~you/c", "only ~ and ~/… are expanded: write the folder in full"),
        ("WORKSPACE_PATH", "/", "must be a folder of its own, not /"),
        ("COMFYUI_CUSTOM_NODES", "frist-node",
         "no custom node is named 'frist-node'; did you mean First-Node?"),
        ("COMFYUI_CUSTOM_NODES", "qqq",
         "no custom node is named 'qqq'; give a declared name or a git URL"),
        ("COMFYUI_CUSTOM_NODES", "https://me:pw@host/a",
         "the URL holds credentials: remove them and use git's credential configuration"),
        ("COMFYUI_CUSTOM_NODES", "https://host/other/SECOND",
         "custom node SECOND is also custom_nodes[1]: give each its own name"),
    ],
)  # fmt: skip
def test_a_wrong_variable_is_named(lines: Lines, name: str, value: str, message: str) -> None:
    assert lines(NODES, **{name: value}) == [f"environment: {name}: {message}"]


def test_a_variable_in_env_local_is_named_by_its_line(lines: Lines) -> None:
    local = (
        "# ours\nexport NUM_GPUS=two\nnonsense\nA='open\nCOMFYUI_CPU_ONLY = true # here\n"
        "\n  \nB-C=d\n"
    )
    assert lines("port: 1", local=local) == [
        "machine.yaml:3: port: is not a field here; it belongs under health",
        f".env.local:2: NUM_GPUS: {GPUS}",
        ".env.local:3: write NAME=value",
        ".env.local:4: the quote is never closed",
        ".env.local:8: write NAME=value",
    ]


def test_the_process_wins_over_env_local(read: Load) -> None:
    machine = read(local="NUM_GPUS=2\nTOKEN=a\nOTHER=b\n", NUM_GPUS="3", TOKEN="c")
    assert machine.instances.gpus == 3
    assert (machine.env["TOKEN"], machine.env["OTHER"]) == ("c", "b")


def test_env_local_is_read_as_shells_and_compose_do(read: Load) -> None:
    local = """
# a comment
A=plain
export B="two words" # why
C='single # not a comment'
D=
E = spaced
F=a#b
G=a # comment
H=x=y
I="two
lines"
J = # nothing
"""
    env = read(local=local).env
    assert {name: env[name] for name in "ABCDEFGHIJ"} == {
        "A": "plain",
        "B": "two words",
        "C": "single # not a comment",
        "D": "",
        "E": "spaced",
        "F": "a#b",
        "G": "a",
        "H": "x=y",
        "I": "two\nlines",
        "J": "",
    }


def test_an_env_local_that_can_not_be_read_is_a_problem(folder: Path, lines: Lines) -> None:
    (folder / ".env.local").write_bytes(b"A=\xff")
    assert lines() == [".env.local: can't be read: is not UTF-8"]
    (folder / ".env.local").unlink()
    (folder / ".env.local").mkdir()
    assert lines() == [".env.local: can't be read: Is a directory"]


def test_values_never_show_in_a_problem_or_a_repr(read: Load, lines: Lines) -> None:
    assert "s3cret" not in "".join(lines(local="TOKEN='s3cret\ns3cret\n"))
    machine = read(local="A=1\n", TOKEN="s3cret")
    assert "s3cret" not in repr(machine)
    assert "s3cret" not in machine.model_dump_json()


@pytest.mark.parametrize(
    ("value", "selected", "nodes"),
    [
        ("", None, ["First-Node", "second"]),
        (" , ", None, ["First-Node", "second"]),
        ("second", ("second",), ["First-Node", "second"]),
        ("SECOND, first-node,second", ("second", "First-Node"), ["First-Node", "second"]),
        ("https://host/x", None, ["First-Node", "second", "x"]),
        ("https://host/x,https://host/x.git", None, ["First-Node", "second", "x"]),
        ("second,https://host/x", ("second", "x"), ["First-Node", "second", "x"]),
        ("https://github.com/Owner/other", None, ["First-Node", "second"]),
        ("First-Node,git@host:a/x.git", ("First-Node", "x"), ["First-Node", "second", "x"]),
    ],
)
def test_names_select_custom_nodes_and_urls_add_to_them(
    read: Load, value: str, selected: tuple[str, ...] | None, nodes: list[str]
) -> None:
    machine = read(NODES, COMFYUI_CUSTOM_NODES=value)
    assert machine.selected_nodes == selected
    assert [node.name for node in machine.custom_nodes] == nodes


def test_a_repository_from_the_environment_replaces_a_path_and_its_page_a_ref(read: Load) -> None:
    path = "workspace: ws\ncomfyui: {path: ../c}\n"
    assert read(minimal=path, COMFYUI_REPO="/srv/fork").comfyui.path is None
    ref = "workspace: ws\ncomfyui: {ref: v1}\n"
    assert read(minimal=ref, COMFYUI_REPO="https://host/fork").comfyui.ref == "v1"
    page = "https://github.com/owner/fork/tree/dev"
    assert read(minimal=ref, COMFYUI_REPO=page).comfyui.ref == "dev"


def test_what_an_override_hides_in_the_file_is_still_named(lines: Lines) -> None:
    assert lines("instances: {gpus: some}", NUM_GPUS="2") == [
        f"machine.yaml:3: instances.gpus: {GPUS}"
    ]


def test_fewer_gpus_from_the_environment_leave_overrides_unused(read: Load) -> None:
    machine = read("instances: {gpus: 4, overrides: {3: {port: 9999}}}", NUM_GPUS="2")
    assert [instance.port for instance in machine.instances_for(8)] == [8188, 8189]


def test_the_environment_s_problems_are_listed_beside_a_broken_file(folder: Path) -> None:
    (folder / "machine.yaml").write_text("a: [")
    environ = {"NUM_GPUS": "two", "ENABLE_COMFYUI": "2", "COMFYUI_CUSTOM_NODES": "a"}
    with pytest.raises(SpecError) as error:
        load(Path("machine.yaml"), environ)
    assert [(problem.file, problem.path) for problem in error.value.problems] == [
        ("machine.yaml", ""),
        ("environment", "ENABLE_COMFYUI"),
        ("environment", "NUM_GPUS"),
    ]
