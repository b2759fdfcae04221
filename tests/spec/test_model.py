from __future__ import annotations

import pytest
from pydantic import ValidationError

from comfy_machine.spec import in_bytes
from tests.spec.conftest import Lines, Load


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("custom_node: []", "custom_node: is not a field here; did you mean custom_nodes?"),
        ("instances: {gpus:3}",
         "instances.gpus:3: is not a field here; write a space after the colon: gpus: 3"),
        ("instances: {gpu: }", "instances.gpu: is not a field here; did you mean gpus?"),
        ("instances: {gpu: 1}", "instances.gpu: is not a field here; did you mean gpus?"),
        ("instances: {port-start: 1}",
         "instances.port-start: is not a field here; did you mean port_start?"),
        ("port_start: 1", "port_start: is not a field here; it belongs under instances"),
        ("comfyui_: {}", "comfyui_: is not a field here; did you mean comfyui?"),
        ("custom_nodes: [{path: x, reff: y}]",
         "custom_nodes[0].reff: is not a field here; did you mean ref?"),
        ("instances: {overrides: {0: {arg: []}}}",
         "instances.overrides[0].arg: is not a field here; did you mean args?"),
        ("health: {qqq: 1}",
         "health.qqq: is not a field here; known are server, port, listen, token, timeout, warmup, "
         "canary, canary_every"),
        ("1: 2", "[1]: is not a field here; known are workspace, machine_id, comfyui, python, "
         "custom_nodes, registry, models, instances, health, workers, jobs, retention"),
        ("custom_nodes: {a: b}",
         "custom_nodes: must be a list: [https://github.com/OWNER/NAME], or one on each line "
         "after -"),
        ("custom_nodes: [a]", "custom_nodes[0]: must be an address: https://github.com/OWNER/a"),
        ("models: []", "models: must be a mapping of key: value"),
        ("python: {overrides: numpy}", "python.overrides: must be a list: [numpy]"),
        ("python: {extra_index_urls: [wheels]}",
         "python.extra_index_urls[0]: must be a URL such as https://host/simple"),
        ("python: {extra_index_urls: ['https://me:pw@host/simple']}",
         "python.extra_index_urls[0]: the URL holds credentials: remove them and use ~/.netrc, "
         "or variables: https://${USER}:${TOKEN}@host/… or https://${TOKEN}@host/…"),
        ("python: {find_links: ['${HOME}/wheels']}",
         "python.find_links[0]: ${…} is understood as user and password only: "
         "https://${USER}:${TOKEN}@host/… or https://${TOKEN}@host/…"),
        ("python: {find_links: ['']}", "python.find_links[0]: must not be empty"),
        ("python: {overrides: [-r x]}",
         "python.overrides[0]: must be a requirement such as numpy<2, not an option"),
        ("python: {packages: boto3}", "python.packages: must be a list: [boto3]"),
        ("python: {packages: [boto3=1]}", "python.packages[0]: not a requirement: write boto3==1"),
        ("python: {packages: [./wheels/a.whl]}",
         "python.packages[0]: must be a requirement such as numpy<2; folders of wheels are "
         "python.find_links"),
        ("python: {packages: ['git+https://host/a.git']}",
         "python.packages[0]: give the package's name before it: NAME @ git+https://host/a.git"),
        ("python: {packages: ['a @ file:///srv/a.whl']}",
         "python.packages[0]: a file of this machine: put its folder into python.find_links"),
        ("python: {packages: ['a @ git+https://me:pw@host/a.git']}",
         "python.packages[0]: the URL holds credentials: remove them and use ~/.netrc"),
        ("python: {packages: ['git+https://me:pw@host/a.git']}",
         "python.packages[0]: the URL holds credentials: remove them and use ~/.netrc"),
        ("instances: {cpu_only: 1}", "instances.cpu_only: must be true or false"),
        ('instances: {cpu_only: "true"}',
         "instances.cpu_only: must be true or false, written without quotes"),
        ("instances: {port_start: 0}", "instances.port_start: must be at least 1"),
        ("instances: {port_start: 70000}", "instances.port_start: must be at most 65535"),
        ('instances: {port_start: "1"}',
         "instances.port_start: must be a whole number, written without quotes"),
        ("instances: {listen: '*'}",
         "instances.listen: must be an address such as 127.0.0.1, or 0.0.0.0 for every interface"),
        ("health: {token: abc}",
         "health.token: a token must not be in this file: write ${NAME}, and set that variable"),
        ("health: {timeout: 5m}", "health.timeout: must be a whole number"),
        ("models: {folder: ''}", "models.folder: must not be empty"),
        ("models: {folder: [a]}", "models.folder: must be text"),
        ('models: {folder: "a\\0b"}', "models.folder: holds a control character"),
        ("models: {folder: '${HOME}/m'}", "models.folder: ${…} is understood in env values only"),
        ("models: {folder: ~you/m}",
         "models.folder: only ~ and ~/… are expanded: write the folder in full"),
        ("models: {extra_roots: [{read_only: true}]}", "models.extra_roots[0].path: is required"),
        ("models: {extra_roots: [{path: }]}", "models.extra_roots[0].path: has no value"),
        (
            "python: {torch: cuda}",
            "python.torch: write auto, the build for this machine's driver, or a backend such as "
            "cu128",
        ),
        ("retention: {generations: 0}", "retention.generations: must be at least 1"),
        ("workers: [{name: a}]", "workers[0].command: is required"),
        ("workers: [{name: a, command: []}]", "workers[0].command: must not be empty"),
        ("workers: [{name: a, command: run it}]",
         "workers[0].command: must be a list, such as [one, two]"),
        ("workers: [{name: a, command: [x, '${T}']}]",
         "workers[0].command[1]: ${…} is understood in env values only: put it under env:"),
        ("workers: [{name: comfyui, command: [x]}]",
         "workers[0].name: small letters, digits and -, no - first, and not comfyui"),
        ("workers: [{name: A_b, command: [x]}]",
         "workers[0].name: small letters, digits and -, no - first, and not comfyui"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_what_to_write(lines: Lines, text: str, expected: str) -> None:
    assert lines(text) == [f"machine.yaml:3: {expected}"]


def test_an_instance_has_its_key_and_certificate_from_both_places(lines: Lines, read: Load) -> None:
    text = "instances: {gpus: 2, args: [--tls-keyfile, /k, --tls-certfile, /c]}"
    assert [each.scheme for each in read(text).instances_for(2)] == ["https", "https"]
    text = "instances: {gpus: 2, overrides: {1: {args: [--tls-keyfile=/k, --tls-certfile=/c]}}}"
    assert [each.scheme for each in read(text).instances_for(2)] == ["http", "https"]
    text = "instances: {gpus: 1, overrides: {0: {args: [--tls-keyfile, /k]}}}"
    assert lines(text) == [
        "machine.yaml:3: instances.overrides[0].args[0]: --tls-keyfile means nothing without "
        "--tls-certfile: give both"
    ]


@pytest.mark.parametrize("torch", ["rocm6.3", "xpu"])
def test_a_torch_for_other_gpus_than_nvidias_runs_on_the_cpu_alone(
    lines: Lines, torch: str
) -> None:
    text = f"python: {{torch: {torch}}}\ninstances: {{gpus: 2}}"
    refused = [
        f"machine.yaml:3: python.torch: {torch} is for GPUs that comfy-machine can't find: it "
        "finds only NVIDIA GPUs; set instances.cpu_only, or another torch"
    ]
    assert lines(text) == refused
    assert lines(text, NUM_GPUS="1") == refused
    assert lines(text, COMFYUI_CPU_ONLY="true") == []
    only = f"python: {{torch: {torch}}}\ninstances: {{cpu_only: true}}"
    assert lines(only) == []
    assert lines(only, COMFYUI_CPU_ONLY="false") == refused


@pytest.mark.parametrize("torch", ["auto", "cpu", "pypi", "none", "cu118", "rocm6.3", "xpu"])
def test_every_choice_of_torch_is_understood(read: Load, torch: str) -> None:
    text = f"python: {{torch: {torch}}}\ninstances: {{cpu_only: true}}"
    assert read(text).python.torch == torch


@pytest.mark.parametrize("size", ["24", "24GB", "1.5G", "0G", "-1G", "G", "24 G", "24g", "true"])
def test_a_size_is_a_whole_number_with_a_unit(lines: Lines, size: str) -> None:
    why = "must be a size: a whole number with K, M, G or T, such as 24G or 512M"
    at = "machine.yaml:3: instances.limits.memory"
    assert lines(f"instances: {{limits: {{memory: {size}}}}}") == [f"{at}: {why}"]


def test_sizes_are_powers_of_1024(read: Load) -> None:
    memory = read("instances: {limits: {memory: 3M}, logs: {max_age: 0}}").instances.limits.memory
    assert memory is not None
    assert in_bytes(memory) == 3 * 1024 * 1024


@pytest.mark.parametrize(
    ("limits", "path", "why"),
    [
        ("nice: 20", "limits.nice", "must be at most 19"),
        ("nice: -21", "limits.nice", "must be at least -20"),
        ("open_files: 10", "limits.open_files", "must be at least 256"),
    ],
)
def test_a_limit_that_no_machine_could_have_is_refused(
    lines: Lines, limits: str, path: str, why: str
) -> None:
    assert lines(f"instances: {{limits: {{{limits}}}}}") == [
        f"machine.yaml:3: instances.{path}: {why}"
    ]


def test_the_built_value_of_a_partly_built_field_is_fine(read: Load) -> None:
    assert read("instances: {port_conflict: fail, drain_timeout: }") == read()


@pytest.mark.parametrize(
    ("args", "item", "message"),
    [
        ("[--port, 1]", "[0]", "--port is set by the machine: use instances.port_start"),
        ("[--port=1]", "[0]", "--port is set by the machine: use instances.port_start"),
        ("[--por, 1]", "[0]", "--port is set by the machine: use instances.port_start"),
        ("[--cpu]", "[0]", "--cpu is set by the machine: use instances.cpu_only"),
        ("[--out, x]", "[0]",
         "--output-directory is set by the machine: use workspace: outputs are in shared/outputs"),
        ("[--x, --cuda-device]", "[1]", "--cuda-device is set by the machine: use instances.gpus"),
        ("[--models-directory, /m]", "[0]",
         "--models-directory is set by the machine: use models.folder"),
        ("[--enable-assets]", "[0]", "--enable-assets is set by the machine: use instances.assets"),
        ("[--disable-as]", "[0]", "--disable-assets is set by the machine: use instances.assets"),
        ("[--default-device, 1]", "[0]",
         "--default-device is set by the machine: use instances.gpus"),
        ("[--disabled-nodes-config, x]", "[0]",
         "--disabled-nodes-config is set by the machine: use the variable COMFYUI_CUSTOM_NODES"),
        ("[--lowvram, --enable-manager]", "[1]",
         "--enable-manager installs packages into what runs: list custom nodes under custom_nodes"),
        ("[--enable-manager-l]", "[0]",
         "--enable-manager-legacy-ui installs packages into what runs: list custom nodes under "
         "custom_nodes"),
        ("[--auto-launch]", "[0]", "--auto-launch opens a browser on this machine: remove it"),
        ("[--windows-standalone-build]", "[0]",
         "--windows-standalone-build opens a browser on this machine: remove it"),
        ("[--debug-hang]", "[0]",
         "--debug-hang makes ComfyUI survive the signal that it is stopped with: remove it"),
        ("[--list-feature-flags]", "[0]",
         "--list-feature-flags makes ComfyUI print something and end: remove it"),
        ("[-h]", "[0]", "-h makes ComfyUI print something and end: remove it"),
        ("[--tls-keyfile, /k]", "[0]",
         "--tls-keyfile means nothing without --tls-certfile: give both"),
        ("[--tls-certfile=/c]", "[0]",
         "--tls-certfile means nothing without --tls-keyfile: give both"),
        ("[--tls-key, /k, --tls-cert, c.pem]", "[2]",
         "--tls-certfile needs the whole path of a file, from /"),
        ("['--reserve-vram 2']", "[0]", "write it as two items: [--reserve-vram, '2']"),
        ("[true]", "[0]", 'YAML reads true as true or false; quote it: "true"'),
        ("['']", "[0]", "must not be empty"),
        ("['${X}']", "[0]", "${…} is understood in env values only"),
        ("--lowvram", "", "must be a list: [--lowvram]"),
    ],
)  # fmt: skip
def test_an_argument_that_is_ours_or_misspelt_is_refused(
    lines: Lines, args: str, item: str, message: str
) -> None:
    for field in ("instances: {args: %s}", "instances: {overrides: {0: {args: %s}}}"):
        path = "instances.overrides[0].args" if "overrides" in field else "instances.args"
        assert lines(field % args) == [f"machine.yaml:3: {path}{item}: {message}"]


def test_a_number_among_the_arguments_is_text(read: Load) -> None:
    args = read("instances: {args: [--reserve-vram, 2, --x, 0.5, --cpu-vae, 'a b']}").instances.args
    assert args == ("--reserve-vram", "2", "--x", "0.5", "--cpu-vae", "a b")


@pytest.mark.parametrize(
    ("env", "path", "message"),
    [
        ("{A: 1}", ".A", "YAML reads this as a number; quote it"),
        ("{A: true}", ".A", "YAML reads this as true or false; quote it"),
        ("{A: }", ".A", 'has no value: write "" for an empty text'),
        ("{A: [b]}", ".A", "must be text"),
        ("{a-b: c}", ".a-b", "not a variable's name: letters, digits and _, no digit first"),
        ("{CUDA_VISIBLE_DEVICES: '0'}", ".CUDA_VISIBLE_DEVICES",
         "is set by the machine: use instances.gpus, or name a part of a GPU, MIG-…"),
        ("{COMFY_MACHINE_X: '0'}", ".COMFY_MACHINE_X", "is set by the machine: remove it"),
        ("{A: '${'}", ".A", "a variable is written ${NAME}, with nothing else between the braces"),
        ("{A: '${B:-c}'}",
         ".A", "a variable is written ${NAME}, with nothing else between the braces"),
        ("{A: '${B}${C'}",
         ".A", "a variable is written ${NAME}, with nothing else between the braces"),
        ('{A: "x\\0"}', ".A", "holds a NUL character"),
        ("[A]", "", "must be a mapping of key: value"),
    ],
)  # fmt: skip
def test_an_environment_is_names_and_text(lines: Lines, env: str, path: str, message: str) -> None:
    assert lines(f"instances: {{env: {env}}}") == [
        f"machine.yaml:3: instances.env{path}: {message}"
    ]


@pytest.mark.parametrize("value", ["MIG-1b2c", "${PART}"])
def test_an_instance_may_name_a_part_of_a_gpu(read: Load, value: str) -> None:
    env = f"{{env: {{CUDA_VISIBLE_DEVICES: '{value}'}}}}"
    machine = read(f"instances: {{gpus: 2, overrides: {{1: {env}}}}}")
    assert [instance.device for instance in machine.instances_for(0)] == [None, value]
    assert read(f"instances: {env}").instances_for(1)[0].device == value


@pytest.mark.parametrize("value", ["'1'", "GPU-1", "''", "mig-1"])
def test_a_whole_gpu_is_named_by_its_index_alone(lines: Lines, value: str) -> None:
    found = lines(f"instances: {{overrides: {{0: {{env: {{CUDA_VISIBLE_DEVICES: {value}}}}}}}}}")
    assert found == [
        "machine.yaml:3: instances.overrides[0].env.CUDA_VISIBLE_DEVICES: is set by the machine: "
        "use instances.gpus, or name a part of a GPU, MIG-…"
    ]


def test_no_worker_chooses_a_gpu(lines: Lines) -> None:
    worker = "{name: w, command: [run], env: {CUDA_VISIBLE_DEVICES: MIG-1}}"
    assert lines(f"workers: [{worker}]") == [
        "machine.yaml:3: workers[0].env.CUDA_VISIBLE_DEVICES: is set by the machine: "
        "use instances.gpus"
    ]


def test_a_secret_in_an_environment_is_never_repeated(lines: Lines) -> None:
    assert "12345" not in "".join(lines("instances: {env: {HF_TOKEN: 12345}}"))
    assert "s3cret" not in "".join(lines("instances: {env: {HF_TOKEN: 's3cret${'}}"))


@pytest.mark.parametrize(
    ("gpus", "message"),
    [
        ("[0, 0]", "GPU 0 is listed twice"),
        ("[0, -1]", "must be auto, a number of GPUs, or a list of their indices such as [0, 2]"),
        ("-1", "must be auto, a number of GPUs, or a list of their indices such as [0, 2]"),
        ("'2'", "must be auto, a number of GPUs, or a list of their indices such as [0, 2]"),
        ("all", "must be auto, a number of GPUs, or a list of their indices such as [0, 2]"),
        ("{a: b}", "must be auto, a number of GPUs, or a list of their indices such as [0, 2]"),
        ("0", "at least one: without a GPU set instances.cpu_only, and to start nothing "
         "the variable ENABLE_COMFYUI=false"),
        ("[]", "at least one: without a GPU set instances.cpu_only, and to start nothing "
         "the variable ENABLE_COMFYUI=false"),
    ],
)  # fmt: skip
def test_gpus_are_auto_a_number_or_a_list(lines: Lines, gpus: str, message: str) -> None:
    assert lines(f"instances: {{gpus: {gpus}}}") == [f"machine.yaml:3: instances.gpus: {message}"]


def test_a_machine_is_frozen(read: Load) -> None:
    machine = read()
    with pytest.raises(ValidationError, match="frozen"):
        machine.enabled = False
    with pytest.raises(ValidationError, match="frozen"):
        machine.instances.cpu_only = True
