from __future__ import annotations

import pytest

from comfy_machine.spec import SpecError
from tests.spec.conftest import Lines, Load

NODE = "https://github.com/owner/"


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([f"url: {NODE}Node", f"url: {NODE}node.git"],
         ["5: custom_nodes[1].url: custom node node is also custom_nodes[0]: "
          "give each its own name"]),
        ([f"url: {NODE}a", f"{{url: {NODE}b, name: A}}", "path: ../x/a"],
         ["5: custom_nodes[1].name: custom node A is also custom_nodes[0]: give each its own name",
          "6: custom_nodes[2].path: custom node a is also custom_nodes[0]: "
          "give each its own name"]),
        (["name: x"],
         ["4: custom_nodes[0]: needs url: (a git repository), id: (one in the registry) or path: "
          "(a local directory)"]),
        ([f"{{path: x, url: {NODE}a, ref: b, recursive: true}}"],
         ["4: custom_nodes[0].url: has no meaning beside path: remove one of them",
          "4: custom_nodes[0].ref: has no meaning beside path: remove one of them",
          "4: custom_nodes[0].recursive: has no meaning beside path: remove one of them"]),
        (["{path: x, env: {TOKEN: t}}"],
         ["4: custom_nodes[0].env: has no meaning beside path: put a .env into that folder"]),
        ([f"{{id: a, url: {NODE}a}}", "{id: b, ref: v1, recursive: true}"],
         ["4: custom_nodes[0].url: has no meaning beside id: remove one of them",
          "5: custom_nodes[1].recursive: has no meaning beside id: remove one of them",
          "5: custom_nodes[1].ref: has no meaning beside id: write version:, or url: instead of "
          "id:"]),
        ([f"{{url: {NODE}a, version: 1.0.0}}"],
         ["4: custom_nodes[0].version: is a version of the registry: write ref:"]),
        (["{id: alpha}", "{path: ../Alpha}"],
         ["5: custom_nodes[1].path: custom node Alpha is also custom_nodes[0]: give each its own "
          "name"]),
        (["{id: a@1.0.0}", "{id: owner/name}", "{id: -a}", "{id: a, version: latest}",
          "{id: b, version: nightly}", "{id: c, version: v1}", "{id: d, version: 8.2}"],
         ["4: custom_nodes[0].id: write version: 1.0.0 beside it, and a without @",
          "5: custom_nodes[1].id: must be an id of the registry; a repository is given as url:",
          "6: custom_nodes[2].id: must be an id of the registry, such as comfyui-impact-pack",
          "7: custom_nodes[3].version: leave version out for the newest",
          "8: custom_nodes[4].version: nightly is no version: give the repository as url:, "
          "without id",
          "9: custom_nodes[5].version: must be a version of the registry, such as 8.22.0",
          '10: custom_nodes[6].version: YAML reads 8.2 as a number; quote it: "8.2"']),
        ([f"{{url: {NODE}a/tree/dev, ref: main}}"],
         ["4: custom_nodes[0].ref: is main, but url names dev: keep one"]),
        ([f"url: {NODE}x.disabled"],
         ["4: custom_nodes[0].url: ComfyUI skips a folder that ends in .disabled: "
          "remove the entry, or the ending (name: …)"]),
        ([f"{{url: {NODE}a, name: __PyCache__}}"],
         ["4: custom_nodes[0].name: __PyCache__ is taken in custom_nodes: give another name"]),
        (["path: .."],
         ["4: custom_nodes[0].path: '..' can't be a folder of custom_nodes: give a name of "
          "letters, digits, _ - + and . (name: …)"]),
        (["path: /"],
         ["4: custom_nodes[0].path: '' can't be a folder of custom_nodes: give a name of "
          "letters, digits, _ - + and . (name: …)"]),
    ],
)  # fmt: skip
def test_custom_nodes_are_folders_of_their_own(
    lines: Lines, nodes: list[str], expected: list[str]
) -> None:
    text = "custom_nodes:\n" + "".join(f"  - {node}\n" for node in nodes)
    assert lines(text) == [f"machine.yaml:{line}" for line in expected]


@pytest.mark.parametrize(
    "address", ["http://registry.example.org", "ftp://x", "https://u:p@x", "http://127.0.0.1.evil"]
)
def test_the_registry_and_advisories_are_asked_over_https_or_on_this_machine(
    lines: Lines, address: str
) -> None:
    found = lines(f"registry: {{url: {address}, advisories: ['{address}']}}")
    assert [line.split(": ")[1] for line in found] == ["registry.url", "registry.advisories[0]"]
    assert not lines("registry: {url: http://127.0.0.1:80/api, advisories: [../list, ~/x.json]}")


@pytest.mark.parametrize("name", ["../x", "a/b", "..", ".", ".git", "a\\b", "-x", "x ", "", "é"])
def test_a_name_can_not_leave_custom_nodes(lines: Lines, name: str) -> None:
    (line,) = lines(f"custom_nodes: [{{path: x, name: '{name}'}}]")
    assert line.startswith("machine.yaml:3: custom_nodes[0].name: ")
    assert "can't be a folder of custom_nodes" in line


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        ("{gpus: [0, 2], overrides: {1: {}}}",
         "overrides[1]: GPU 1 has no instance: gpus is 0, 2"),
        ("{gpus: 1, overrides: {1: {}}}", "overrides[1]: GPU 1 has no instance: gpus is 0"),
        ("{overrides: {-1: {}}}", "overrides[-1]: must be at least 0"),
        ("{overrides: {x: {}}}", "overrides.x: must be a whole number"),
        ("{gpus: 2, overrides: {1: {port: 8188}}}",
         "overrides[1].port: port 8188 of comfyui-gpu1 is also comfyui-gpu0's"),
        ("{gpus: 2, overrides: {0: {port: 9}, 1: {port: 9}}}",
         "overrides[1].port: port 9 of comfyui-gpu1 is also comfyui-gpu0's"),
        ("{overrides: {2: {port: 8189}}}",
         "overrides[2].port: port 8189 of comfyui-gpu2 is also comfyui-gpu1's"),
        ("{gpus: 3, port_start: 65534}", "port_start: GPU 2 would have port 65536, above 65535"),
        ("{gpus: 1, overrides: {0: {port: 65536}}}", "overrides[0].port: must be at most 65535"),
    ],
)  # fmt: skip
def test_every_instance_has_a_gpu_and_a_port_of_its_own(
    lines: Lines, instances: str, expected: str
) -> None:
    assert lines(f"instances: {instances}") == [f"machine.yaml:3: instances.{expected}"]


def test_an_override_may_move_an_instance_off_a_port(lines: Lines) -> None:
    assert lines("instances: {gpus: 2, overrides: {0: {port: 8189}, 1: {port: 8188}}}") == []


def test_a_clash_that_needs_more_gpus_than_the_file_names_is_found_with_the_gpus(
    read: Load,
) -> None:
    machine = read("instances: {overrides: {0: {port: 8190}}}")
    assert [instance.port for instance in machine.instances_for(2)] == [8190, 8189]
    with pytest.raises(SpecError, match=r"port 8190 of comfyui-gpu2 is also comfyui-gpu0's"):
        machine.instances_for(3)
    with pytest.raises(SpecError, match=r"port 65536 of comfyui-gpu1 is above 65535"):
        read("instances: {port_start: 65535}").instances_for(2)


def test_no_instance_has_the_port_of_the_health_server(lines: Lines) -> None:
    text = "instances: {gpus: 1, port_start: 9090}"
    assert lines(text) == [
        "machine.yaml:3: instances.port_start: port 9090 of comfyui-gpu0 is also health.port"
    ]
    assert lines(f"health: {{server: false}}\n{text}") == []


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/abs", "must stay below the models folder: no /… ~ .. or backslash"),
        ("../x", "must stay below the models folder: no /… ~ .. or backslash"),
        ("a/../../x", "must stay below the models folder: no /… ~ .. or backslash"),
        ("~/x", "must stay below the models folder: no /… ~ .. or backslash"),
        ("a\\\\b", "must stay below the models folder: no /… ~ .. or backslash"),
        ("a\\0b", "holds a control character"),
        ("a\\nb", "holds a control character"),
        ("", "must not be empty"),
        (".", "names a folder: end with the file's name"),
        ("loras/", "names a folder: end with the file's name"),
    ],
)
def test_a_model_stays_below_the_models_folder(lines: Lines, target: str, message: str) -> None:
    assert lines(f'models: {{files: [{{target: "{target}", source: x}}]}}') == [
        f"machine.yaml:3: models.files[0].target: {message}"
    ]


def test_models_do_not_lie_in_one_another_s_place(lines: Lines) -> None:
    text = """models:
  files:
    - {target: a/b, source: x}
    - {target: a//b, source: x}
    - {target: a/b/c, source: x}
    - {target: d}
    - {target: e, source: "https://host/e"}
"""
    assert lines(text) == [
        "machine.yaml:6: models.files[1].target: a/b is also models.files[0]",
        "machine.yaml:7: models.files[2].target: lies below a/b, which is a model itself",
        "machine.yaml:8: models.files[3]: needs url: (a download) or source: (a file or folder on "
        "this machine)",
        "machine.yaml:9: models.files[4].source: must be a file or folder on this machine; an "
        "address is given as url:",
    ]


def test_a_models_folder_or_file_is_named_once(lines: Lines) -> None:
    text = """models:
  folder: m
  extra_roots: [{path: /nas}, {path: m/}, {path: /x/../nas}]
  files:
    - {target: a/b, source: m/a/b}
"""
    assert lines(text) == [
        "machine.yaml:5: models.extra_roots[1].path: is also models.folder: remove one of them",
        "machine.yaml:5: models.extra_roots[2].path: is also models.extra_roots[0]: "
        "remove one of them",
        "machine.yaml:7: models.files[0].source: is the target itself: "
        "remove the entry, the file is in place",
    ]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("health: {}", "health: needs either url or command"),
        ("health: {url: http://127.0.0.1:1, command: [x]}", "health: needs either url or command"),
        (
            "health: {url: 127.0.0.1:1}",
            "health.url: must be an address such as http://127.0.0.1:8000/health",
        ),
        (
            "health: {url: 'http://127.0.0.1/${TOKEN}'}",
            "health.url: an address holds only ${instance.…}: put secrets under env:",
        ),
        (
            "per: machine, env: {A: '${instance.port}'}",
            "env.A: per: machine has no instance to name",
        ),
        (
            "env: {A: '${instance.disk}'}",
            "env.A: of an instance there are ${instance.gpu}, ${instance.host}, ${instance.name}, "
            "${instance.port}, ${instance.url}",
        ),
    ],
)
def test_a_worker_is_checked_across_its_fields(lines: Lines, fields: str, problem: str) -> None:
    assert lines(f"workers: [{{name: w, command: [x], {fields}}}]") == [
        f"machine.yaml:3: workers[0].{problem}"
    ]


def test_workers_have_names_of_their_own(lines: Lines) -> None:
    worker = "{name: w, command: [x]}"
    assert lines(f"workers: [{worker}, {worker}]") == [
        "machine.yaml:3: workers[1].name: worker w is also workers[0]: give each its own name"
    ]


@pytest.mark.parametrize(
    ("minimal", "text", "expected"),
    [
        ("comfyui: {}\n", "", "machine.yaml: workspace: is required"),
        ("workspace: ws\n", "", "machine.yaml: comfyui: is required"),
        ("workspace: ws\ncomfyui:\n", "", "machine.yaml:2: comfyui: has no value"),
        ("workspace: /\ncomfyui: {}\n",
         "", "machine.yaml:1: workspace: must be a folder of its own, not /"),
        ("workspace: ws\ncomfyui: {install_path: .}\n", "",
         "machine.yaml:2: comfyui.install_path: "
         "must not be the workspace, around it, or in .machine"),
        ("workspace: ws\ncomfyui: {}\n", "models: {folder: ComfyUI/models}",
         "machine.yaml:3: models.folder: and comfyui.install_path must not lie in one another"),
        ("workspace: ws\ncomfyui: {install_path: /opt/c}\n", "models: {folder: ..}",
         "machine.yaml:3: models.folder: must not be the workspace, around it, or in .machine"),
        ("workspace: ws\ncomfyui: {path: .}\n", "",
         "machine.yaml:2: comfyui.path: holds the workspace, so it can't be copied into it"),
        ("workspace: ws\ncomfyui: {path: ../c, ref: main}\n", "",
         "machine.yaml:2: comfyui.ref: has no meaning beside path: remove one of them"),
    ],
)  # fmt: skip
def test_folders_do_not_lie_in_one_another_s_way(
    lines: Lines, minimal: str, text: str, expected: str
) -> None:
    assert lines(text, minimal=minimal) == [expected]


def test_every_problem_is_listed_at_once_in_the_order_of_the_file(lines: Lines) -> None:
    text = f"""custom_nodes:
  - {{url: {NODE}a, reff: x}}
  - {{url: {NODE}a, ref: 12345678}}
  - {{url: -oops}}
instances: {{gpus: 2, port_start: x, overrides: {{5: {{}}}}}}
health: {{timeout: 0}}
"""
    assert lines(text, NUM_GPUS="some") == [
        "machine.yaml:4: custom_nodes[0].reff: is not a field here; did you mean ref?",
        "machine.yaml:5: custom_nodes[1].ref: "
        'YAML reads 12345678 as a number; quote it: "12345678"',
        "machine.yaml:5: custom_nodes[1].url: "
        "custom node a is also custom_nodes[0]: give each its own name",
        "machine.yaml:6: custom_nodes[2].url: a URL must not begin with -",
        "machine.yaml:7: instances.port_start: must be a whole number",
        "machine.yaml:7: instances.overrides[5]: GPU 5 has no instance: gpus is 0, 1",
        "machine.yaml:8: health.timeout: must be at least 1",
        "environment: NUM_GPUS: must be auto, a number of GPUs, or a list of their indices such as "
        "[0, 2]",
    ]


def test_only_the_first_of_very_many_problems_are_told(read: Load) -> None:
    nodes = "".join(f"  - {{url: -oops{number}}}\n" for number in range(60))
    with pytest.raises(SpecError) as caught:
        read(f"custom_nodes:\n{nodes}")
    told = str(caught.value).splitlines()
    assert len(told) == 51
    assert told[0].startswith("machine.yaml:4: custom_nodes[0].url")
    assert told[-1] == "and 10 more"
