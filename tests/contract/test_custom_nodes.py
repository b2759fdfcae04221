"""Custom nodes: how they are found, loaded, refused and executed."""

from __future__ import annotations

from typing import Any

import pytest

from .client import Client, Prompt, messages, picture, preview, until
from .installation import Installation, Server, node

WITHOUT_NODES = "NODE_CLASS_MAPPINGS = {}\n"


def modules(server: Client) -> dict[str, str]:
    """The python_module of each custom node."""
    found = {name: info["python_module"] for name, info in server.json("/object_info").items()}
    return {name: module for name, module in found.items() if module.startswith("custom_nodes.")}


def output(name: str, **inputs: Any) -> Prompt:
    return {"1": {"class_type": name, "inputs": inputs}}


def test_a_folder_and_a_single_file_are_loaded(comfyui: Installation) -> None:
    base = comfyui.base()
    folder = base.add_node("My-Pack.v2", node("return (value,)", "InFolder"))
    file = base.add("custom_nodes/single_file.py", node("return (value,)", "InFile"))
    server = comfyui.start(base)
    assert modules(server) == {
        "InFolder": "custom_nodes.My-Pack.v2",
        "InFile": "custom_nodes.single_file",
    }
    assert "Import times for custom nodes:" in server.log
    assert f" seconds: {folder}\n" in server.log
    assert f" seconds: {file}\n" in server.log


def test_a_node_is_described_and_executed(comfyui: Installation) -> None:
    base = comfyui.base()
    source = node("return {'ui': {'seen': [value + 1]}, 'result': (value + 1,)}")
    base.add_node("pack", source + 'NODE_DISPLAY_NAME_MAPPINGS = {"Noted": "A Noted Node"}\n')
    server = comfyui.start(base)
    described = server.json("/object_info/Noted")["Noted"]
    assert described["display_name"] == "A Noted Node"
    assert described["python_module"] == "custom_nodes.pack"
    assert described["output_node"] is True
    prompt = output("Noted", value=1) | {
        "2": {"class_type": "Noted", "inputs": {"value": ["1", 0]}}
    }
    outputs = server.run(prompt)["outputs"]
    assert outputs == {"1": {"seen": [2]}, "2": {"seen": [3]}}


def test_an_image_goes_through_a_custom_node(comfyui: Installation) -> None:
    base = comfyui.base()
    source = node("return (value,)", "Pass").replace('"INT"', '"IMAGE"')
    base.add_node("pack", source)
    server = comfyui.start(base)
    through = {"class_type": "Pass", "inputs": {"value": ["1", 0]}}
    done = server.run({"1": picture(), "2": through, "3": preview("2")})
    assert done["status"]["status_str"] == "success"
    assert done["outputs"]["3"]["images"]


def test_an_async_node_is_awaited(comfyui: Installation) -> None:
    base = comfyui.base()
    source = node("import asyncio\nawait asyncio.sleep(0)\nreturn {'ui': {'seen': [value]}}")
    base.add_node("pack", source.replace("def run", "async def run"))
    server = comfyui.start(base)
    assert server.run(output("Noted", value=5))["outputs"] == {"1": {"seen": [5]}}


def test_lists_are_taken_one_by_one(comfyui: Installation) -> None:
    base = comfyui.base()
    listing = node("return ([value, value + 1],)", "Both").replace(
        'FUNCTION = "run"', 'FUNCTION = "run"\n    OUTPUT_IS_LIST = (True,)'
    )
    base.add_node("both", listing)
    base.add_node("noted", node("return {'ui': {'seen': [value]}, 'result': (value,)}"))
    server = comfyui.start(base)
    noted = {"class_type": "Noted", "inputs": {"value": ["1", 0]}}
    done = server.run(output("Both", value=1) | {"2": noted})
    assert done["outputs"]["2"] == {"seen": [1, 2]}


def test_a_node_that_says_it_changed_is_executed_again(comfyui: Installation) -> None:
    base = comfyui.base()
    source = node("type(self).n = getattr(self, 'n', 0) + 1\nreturn {'ui': {'n': [self.n]}}")
    changed = "\n    IS_CHANGED = classmethod(lambda cls, value: float('nan'))"
    base.add_node("changing", source.replace('"run"', '"run"' + changed).replace("Noted", "Nan"))
    base.add_node("same", source)
    server = comfyui.start(base)
    prompt = output("Nan", value=1) | {"2": {"class_type": "Noted", "inputs": {"value": 1}}}
    server.run(prompt)
    assert server.run(prompt)["outputs"] == {"1": {"n": [2]}, "2": {"n": [1]}}


def test_hidden_inputs_are_given(comfyui: Installation) -> None:
    base = comfyui.base()
    source = node("return {'ui': {'id': [unique_id], 'nodes': [list(prompt)]}}")
    source = source.replace("self, value", "self, value, unique_id, prompt").replace(
        '{"required": {"value": ("INT", {})}}',
        '{"required": {"value": ("INT", {})},'
        ' "hidden": {"unique_id": "UNIQUE_ID", "prompt": "PROMPT"}}',
    )
    base.add_node("pack", source)
    server = comfyui.start(base)
    assert server.run(output("Noted", value=1))["outputs"]["1"] == {"id": ["1"], "nodes": [["1"]]}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("raise RuntimeError('broken')", "broken"),
        ("syntax error", "invalid syntax"),
    ],
)
def test_a_failing_node_is_logged_and_stops_nothing(
    comfyui: Installation, source: str, reason: str
) -> None:
    base = comfyui.base()
    bad = base.add_node("bad", source)
    base.add_node("good", node("return (value,)"))
    ended = comfyui.load(base)
    assert ended.process.returncode == 0, "even when nodes fail"
    assert "Traceback (most recent call last):" in ended.log
    assert f"Cannot import {bad} module for custom nodes: {reason}" in ended.log
    assert f" seconds (IMPORT FAILED): {bad}\n" in ended.log
    assert f" seconds: {base.path / 'custom_nodes' / 'good'}\n" in ended.log


def test_a_failing_node_shows_over_http_only_by_what_is_missing(comfyui: Installation) -> None:
    base = comfyui.base()
    base.add_node("bad", "raise RuntimeError('broken')")
    base.add_node("empty", WITHOUT_NODES)
    base.add_node("good", node("return (value,)"))
    server = comfyui.start(base)
    assert modules(server) == {"Noted": "custom_nodes.good"}
    assert "IMPORT FAILED" in server.json("/internal/logs")


def test_a_folder_without_nodes_fails(comfyui: Installation) -> None:
    base = comfyui.base()
    plain = base.add_node("plain", "x = 1")
    ended = comfyui.load(base)
    assert f"Skip {plain} module for custom nodes due to the lack of NODE_CLASS_M" in ended.log
    assert f" seconds (IMPORT FAILED): {plain}\n" in ended.log


def test_a_folder_without_init_fails(comfyui: Installation) -> None:
    base = comfyui.base()
    folder = base.add("custom_nodes/half/readme.md").parent
    ended = comfyui.load(base)
    assert ended.process.returncode == 0
    assert f" seconds (IMPORT FAILED): {folder}\n" in ended.log


def test_a_pack_with_an_empty_mapping_loads(comfyui: Installation) -> None:
    base = comfyui.base()
    folder = base.add_node("empty", WITHOUT_NODES)
    assert f" seconds: {folder}\n" in comfyui.load(base).log


def test_disabled_folders_and_other_files_are_skipped(comfyui: Installation) -> None:
    base = comfyui.base()
    base.add_node("off.disabled", "raise RuntimeError('loaded')")
    base.add("custom_nodes/notes.txt")
    base.add("custom_nodes/example.py.example")
    ended = comfyui.load(base)
    assert ended.process.returncode == 0
    for name in ("off", "notes", "example.py"):
        assert f"custom_nodes/{name}" not in ended.log


def test_built_in_nodes_cannot_be_replaced(comfyui: Installation) -> None:
    base = comfyui.base()
    base.add_node("thief", node("return (value,)", "EmptyImage"))
    server = comfyui.start(base)
    assert server.json("/object_info/EmptyImage")["EmptyImage"]["python_module"] == "nodes"


def test_whitelisted_nodes_load_when_all_are_disabled(comfyui: Installation) -> None:
    base = comfyui.base()
    for name in ("a", "b", "c"):
        base.add_node(name, node("return (value,)", name.upper()))
        base.add(f"custom_nodes/{name}/prestartup_script.py", f"print('before {name}', flush=True)")
    flags = ["--disable-all-custom-nodes", "--whitelist-custom-nodes", "a", "c"]
    server = comfyui.start(base, *flags)
    assert modules(server) == {"A": "custom_nodes.a", "C": "custom_nodes.c"}
    assert "Skipping b due to disable_all_custom_nodes and whitelist_custom_nodes" in server.log
    assert "before a" in server.log
    assert "before b" not in server.log


def test_no_node_loads_when_all_are_disabled(comfyui: Installation) -> None:
    base = comfyui.base()
    base.add_node("a", "raise SystemExit(9)")
    ended = comfyui.load(base, "--disable-all-custom-nodes")
    assert ended.process.returncode == 0
    assert "Skipping loading of custom nodes" in ended.log


def test_nodes_of_an_extra_path_are_loaded(comfyui: Installation) -> None:
    base, other = comfyui.base(), comfyui.base("other")
    other.add_node("far", node("return (value,)"))
    folder = other.path / "custom_nodes"
    paths = base.add("extra.yaml", f"a: {{custom_nodes: {folder}}}")
    server = comfyui.start(base, "--extra-model-paths-config", str(paths))
    assert modules(server) == {"Noted": "custom_nodes.far"}
    assert f" seconds: {folder / 'far'}\n" in server.log


def test_prestartup_scripts_run_before_any_node_is_imported(comfyui: Installation) -> None:
    base = comfyui.base()
    for name in ("a", "b"):
        base.add_node(name, f"print('import', '{name}', flush=True)\n{WITHOUT_NODES}")
        script = f"print('before', '{name}', flush=True)"
        base.add(f"custom_nodes/{name}/prestartup_script.py", script)
    log = comfyui.load(base).log
    assert "Prestartup times for custom nodes:" in log
    last_script = max(log.index("before a"), log.index("before b"))
    assert last_script < min(log.index("import a"), log.index("import b"))


def test_a_failing_prestartup_script_is_logged_and_stops_nothing(comfyui: Installation) -> None:
    base = comfyui.base()
    folder = base.add_node("bad", WITHOUT_NODES)
    script = base.add("custom_nodes/bad/prestartup_script.py", "raise RuntimeError('early')")
    ended = comfyui.load(base)
    assert ended.process.returncode == 0
    assert f"Failed to execute startup-script: {script} / early" in ended.log
    assert f" seconds (PRESTARTUP FAILED): {folder}\n" in ended.log
    assert f" seconds: {folder}\n" in ended.log, "the node itself is loaded all the same"


@pytest.mark.parametrize("file", ["__init__.py", "prestartup_script.py"])
def test_a_node_that_exits_at_import_takes_the_server_with_it(
    comfyui: Installation, file: str
) -> None:
    base = comfyui.base()
    base.add_node("exit", WITHOUT_NODES)
    base.add(f"custom_nodes/exit/{file}", "import sys\nsys.exit(7)")
    assert comfyui.load(base).process.returncode == 7


def test_a_node_that_exits_during_a_job_leaves_a_server_that_looks_healthy(
    comfyui: Installation,
) -> None:
    base = comfyui.base()
    base.add_node("exit", node("import sys\nsys.exit(7)", "Exit"))
    server = comfyui.start(base)
    stuck = server.queue(output("Exit", value=1))
    until(lambda: server.running() == [stuck], comfyui.start_timeout, "the job to run")
    later = server.queue({"1": picture(), "2": preview("1")})
    assert server.running() == [stuck]
    assert server.pending() == [later]
    assert server.json("/prompt") == {"exec_info": {"queue_remaining": 2}}
    assert server.json("/system_stats")
    assert server.json(f"/history/{stuck}") == {}
    assert not server.ended


@pytest.mark.parametrize("result", ["return None", "raise ValueError('no')"])
def test_a_node_that_fails_during_a_job_leaves_a_server_that_works(
    comfyui: Installation, result: str
) -> None:
    base = comfyui.base()
    base.add_node("fail", node(result, "Fail"))
    server = comfyui.start(base)
    done = server.run(output("Fail", value=1))
    error = messages(done)["execution_error"]
    assert error["node_type"] == "Fail"
    assert error["exception_type"] in ("TypeError", "ValueError")
    assert error["current_inputs"] == {"value": [1]}
    assert works(server)


def test_nodes_of_an_entrypoint_are_loaded_and_executed(comfyui: Installation) -> None:
    base = comfyui.base()
    base.add_node("newer", "")
    base.add("custom_nodes/newer/__init__.py", NEWER_NODE)
    server = comfyui.start(base)
    described = server.json("/object_info/Newer")["Newer"]
    assert described["python_module"] == "custom_nodes.newer"
    assert described["display_name"] == "A Newer Node"
    assert described["output"] == ["INT"]
    assert described["output_node"] is True
    (kind, options) = described["input"]["required"]["value"]
    assert kind == "INT"
    assert options["min"] == 1
    assert server.run(output("Newer", value=5))["outputs"] == {"1": {"seen": [6]}}
    answer = server.refusal(output("Newer", value=0))
    assert answer["node_errors"]["1"]["errors"][0]["type"] == "value_smaller_than_min"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("comfy_entrypoint = lambda: 5", "did not return a ComfyExtension, skipping."),
        ("def comfy_entrypoint(): 1 / 0", "Error while calling comfy_entrypoint in"),
    ],
)
def test_a_failing_entrypoint_is_logged(comfyui: Installation, source: str, reason: str) -> None:
    base = comfyui.base()
    folder = base.add_node("newer", source)
    ended = comfyui.load(base)
    assert ended.process.returncode == 0
    assert reason in ended.log
    assert f" seconds (IMPORT FAILED): {folder}\n" in ended.log


def test_a_node_may_add_a_route(comfyui: Installation) -> None:
    base = comfyui.base()
    source = """
        from aiohttp import web
        from server import PromptServer

        @PromptServer.instance.routes.get("/mine")
        async def mine(request):
            return web.json_response("here")

        NODE_CLASS_MAPPINGS = {}
    """
    base.add_node("pack", "")
    base.add("custom_nodes/pack/__init__.py", source)
    server = comfyui.start(base)
    assert server.json("/mine") == server.json("/api/mine") == "here"


def works(server: Server) -> bool:
    done = server.run({"1": picture(), "2": preview("1")})
    return bool(done["status"]["completed"])


NEWER_NODE = """
    from comfy_api.latest import ComfyExtension, io

    class Newer(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io.Schema(
                node_id="Newer",
                display_name="A Newer Node",
                category="test",
                inputs=[io.Int.Input("value", default=1, min=1)],
                outputs=[io.Int.Output()],
                is_output_node=True,
            )

        @classmethod
        def execute(cls, value):
            return io.NodeOutput(value + 1, ui={"seen": [value + 1]})

    class Pack(ComfyExtension):
        async def get_node_list(self):
            return [Newer]

    async def comfy_entrypoint():
        return Pack()
"""
