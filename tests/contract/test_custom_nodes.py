"""Custom nodes: how they are found, loaded, refused and executed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.client import Client, Prompt, messages, picture, preview, until
from tests.contract.conftest import KINDS, installation_of
from tests.contract.installation import Base, Installation, Server, node

WITHOUT_NODES = "NODE_CLASS_MAPPINGS = {}\n"


def modules(server: Client) -> dict[str, str]:
    """The python_module of each custom node."""
    found = {name: info["python_module"] for name, info in server.json("/object_info").items()}
    return {name: module for name, module in found.items() if module.startswith("custom_nodes.")}


def output(name: str, **inputs: Any) -> Prompt:
    return {"1": {"class_type": name, "inputs": inputs}}


def fill(base: Base) -> None:
    """Packs of every kind that load, and some that don't."""
    source = node("return {'ui': {'seen': [value + 1]}, 'result': (value + 1,)}")
    base.add_node("pack", source + 'NODE_DISPLAY_NAME_MAPPINGS = {"Noted": "A Noted Node"}\n')
    base.add_node("My-Pack.v2", node("return (value,)", "InFolder"))
    base.add("custom_nodes/single_file.py", node("return (value,)", "InFile"))
    base.add_node("images", node("return (value,)", "Pass").replace('"INT"', '"IMAGE"'))
    waiting = node(
        "import asyncio\nawait asyncio.sleep(0)\nreturn {'ui': {'seen': [value]}}", "Async"
    )
    base.add_node("waiting", waiting.replace("def run", "async def run"))
    listing = node("return ([value, value + 1],)", "Both")
    is_list = 'FUNCTION = "run"\n    OUTPUT_IS_LIST = (True,)'
    base.add_node("listing", listing.replace('FUNCTION = "run"', is_list))
    counting = node(
        "type(self).n = getattr(self, 'n', 0) + 1\nreturn {'ui': {'n': [self.n]}}", "Same"
    )
    changed = "\n    IS_CHANGED = classmethod(lambda cls, value: float('nan'))"
    base.add_node("same", counting)
    base.add_node("changing", counting.replace('"run"', '"run"' + changed).replace("Same", "Nan"))
    hidden = node("return {'ui': {'id': [unique_id], 'nodes': [list(prompt)]}}", "Hidden")
    hidden = hidden.replace("self, value", "self, value, unique_id, prompt").replace(
        '{"required": {"value": ("INT", {})}}',
        '{"required": {"value": ("INT", {})},'
        ' "hidden": {"unique_id": "UNIQUE_ID", "prompt": "PROMPT"}}',
    )
    base.add_node("hidden", hidden)
    base.add_node("thief", node("return (value,)", "EmptyImage"))
    base.add_node("nothing", node("return None", "Nothing"))
    base.add_node("raising", node("raise ValueError('no')", "Raising"))
    base.add("custom_nodes/newer/__init__.py", NEWER_NODE)
    base.add("custom_nodes/routes/__init__.py", ROUTE)
    base.add_node("empty", WITHOUT_NODES)
    for name, (text, _) in FAILING.items():
        base.add_node(name, text)
    base.add("custom_nodes/half/readme.md")
    base.add_node("early", WITHOUT_NODES)
    base.add("custom_nodes/early/prestartup_script.py", "raise RuntimeError('early')")
    for name in ("a", "b"):
        base.add_node(name, f"print('<import {name}>', flush=True)\n{WITHOUT_NODES}")
        script = f"print('<before {name}>', flush=True)"
        base.add(f"custom_nodes/{name}/prestartup_script.py", script)
    base.add_node("off.disabled", "raise RuntimeError('loaded')")
    base.add("custom_nodes/notes.txt")
    base.add("custom_nodes/example.py.example")


@pytest.fixture(scope="module", params=KINDS)
def packs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One server with all of them: what is failing stops nothing."""
    installation = installation_of(request.param, tmp_path_factory.mktemp("packs"))
    base = installation.base()
    fill(base)
    yield installation.start(base)
    installation.close()


def loaded(packs: Server, name: str, failure: str = "") -> bool:
    """Whether a pack is in the list of import times, with that failure."""
    failed = f" ({failure})" if failure else ""
    return f" seconds{failed}: {packs.base.path / 'custom_nodes' / name}\n" in packs.log


def test_a_folder_and_a_single_file_are_loaded(packs: Server) -> None:
    found = modules(packs)
    assert found["InFolder"] == "custom_nodes.My-Pack.v2"
    assert found["InFile"] == "custom_nodes.single_file"
    assert "Import times for custom nodes:" in packs.log
    assert loaded(packs, "My-Pack.v2")
    assert loaded(packs, "single_file.py")


def test_a_node_is_described_and_executed(packs: Server) -> None:
    described = packs.json("/object_info/Noted")["Noted"]
    assert described["display_name"] == "A Noted Node"
    assert described["python_module"] == "custom_nodes.pack"
    assert described["output_node"] is True
    prompt = output("Noted", value=1) | {
        "2": {"class_type": "Noted", "inputs": {"value": ["1", 0]}}
    }
    assert packs.run(prompt)["outputs"] == {"1": {"seen": [2]}, "2": {"seen": [3]}}


def test_an_image_goes_through_a_custom_node(packs: Server) -> None:
    through = {"class_type": "Pass", "inputs": {"value": ["1", 0]}}
    done = packs.run({"1": picture(), "2": through, "3": preview("2")})
    assert done["status"]["status_str"] == "success"
    assert done["outputs"]["3"]["images"]


def test_an_async_node_is_awaited(packs: Server) -> None:
    assert packs.run(output("Async", value=5))["outputs"] == {"1": {"seen": [5]}}


def test_lists_are_taken_one_by_one(packs: Server) -> None:
    noted = {"class_type": "Noted", "inputs": {"value": ["1", 0]}}
    done = packs.run(output("Both", value=1) | {"2": noted})
    assert done["outputs"]["2"] == {"seen": [2, 3]}


def test_a_node_that_says_it_changed_is_executed_again(packs: Server) -> None:
    prompt = output("Nan", value=1) | {"2": {"class_type": "Same", "inputs": {"value": 1}}}
    packs.run(prompt)
    assert packs.run(prompt)["outputs"] == {"1": {"n": [2]}, "2": {"n": [1]}}


def test_hidden_inputs_are_given(packs: Server) -> None:
    assert packs.run(output("Hidden", value=1))["outputs"]["1"] == {"id": ["1"], "nodes": [["1"]]}


FAILING = {
    "lacking": ("import no_such_module", "No module named 'no_such_module'"),
    "broken": ("raise RuntimeError('broken')", "broken"),
    "wrong": ("syntax error", "invalid syntax"),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_failing_node_is_logged_and_stops_nothing(packs: Server, name: str) -> None:
    folder = packs.base.path / "custom_nodes" / name
    assert "Traceback (most recent call last):" in packs.log
    reason = FAILING[name][1]
    assert f"Cannot import {folder} module for custom nodes: {reason}" in packs.log
    assert loaded(packs, name, "IMPORT FAILED")
    assert loaded(packs, "pack")


def test_a_quick_test_succeeds_even_when_nodes_fail(comfyui: Installation) -> None:
    base = comfyui.base()
    bad = base.add_node("bad", "raise RuntimeError('broken')")
    ended = comfyui.load(base)
    assert ended.process.returncode == 0
    assert f" seconds (IMPORT FAILED): {bad}\n" in ended.log


def test_a_failing_node_shows_over_http_only_by_what_is_missing(packs: Server) -> None:
    found = {module.removeprefix("custom_nodes.") for module in modules(packs).values()}
    assert "pack" in found
    assert not found & {*FAILING, "half", "plain", "empty"}
    assert "IMPORT FAILED" in packs.json("/internal/logs")


def test_a_folder_without_nodes_fails(comfyui: Installation) -> None:
    base = comfyui.base()
    plain = base.add_node("plain", "x = 1")
    ended = comfyui.load(base)
    assert f"Skip {plain} module for custom nodes due to the lack of NODE_CLASS_M" in ended.log
    assert f" seconds (IMPORT FAILED): {plain}\n" in ended.log


def test_a_folder_without_init_fails(packs: Server) -> None:
    assert loaded(packs, "half", "IMPORT FAILED")


def test_a_pack_with_an_empty_mapping_loads(packs: Server) -> None:
    assert loaded(packs, "empty")


def test_disabled_folders_and_other_files_are_skipped(packs: Server) -> None:
    for name in ("off", "notes", "example.py"):
        assert f"custom_nodes/{name}" not in packs.log


def test_built_in_nodes_cannot_be_replaced(packs: Server) -> None:
    assert packs.json("/object_info/EmptyImage")["EmptyImage"]["python_module"] == "nodes"


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


def test_prestartup_scripts_run_before_any_node_is_imported(packs: Server) -> None:
    assert "Prestartup times for custom nodes:" in packs.log
    last_script = max(packs.log.index(f"<before {name}>") for name in "ab")
    assert last_script < min(packs.log.index(f"<import {name}>") for name in "ab")


def test_a_failing_prestartup_script_is_logged_and_stops_nothing(packs: Server) -> None:
    script = packs.base.path / "custom_nodes" / "early" / "prestartup_script.py"
    assert f"Failed to execute startup-script: {script} / early" in packs.log
    assert loaded(packs, "early", "PRESTARTUP FAILED")
    assert loaded(packs, "early"), "the node itself is loaded all the same"


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


@pytest.mark.parametrize("name", ["Nothing", "Raising"])
def test_a_node_that_fails_during_a_job_leaves_a_server_that_works(
    packs: Server, name: str
) -> None:
    error = messages(packs.run(output(name, value=1)))["execution_error"]
    assert error["node_type"] == name
    assert error["exception_type"] in ("TypeError", "ValueError")
    assert error["current_inputs"] == {"value": [1]}
    assert packs.run({"1": picture(), "2": preview("1")})["status"]["completed"]


def test_nodes_of_an_entrypoint_are_loaded_and_executed(packs: Server) -> None:
    described = packs.json("/object_info/Newer")["Newer"]
    assert described["python_module"] == "custom_nodes.newer"
    assert described["display_name"] == "A Newer Node"
    assert described["output"] == ["INT"]
    assert described["output_node"] is True
    (kind, options) = described["input"]["required"]["value"]
    assert kind == "INT"
    assert options["min"] == 1
    assert packs.run(output("Newer", value=5))["outputs"] == {"1": {"seen": [6]}}
    answer = packs.refusal(output("Newer", value=0))
    assert answer["node_errors"]["1"]["errors"][0]["type"] == "value_smaller_than_min"


def test_a_failing_entrypoint_is_logged(comfyui: Installation) -> None:
    base = comfyui.base()
    wrong = base.add_node("wrong", "comfy_entrypoint = lambda: 5")
    raising = base.add_node("raising", "def comfy_entrypoint(): 1 / 0")
    ended = comfyui.load(base)
    assert ended.process.returncode == 0
    assert f"comfy_entrypoint in {wrong} did not return a ComfyExtension, skipping." in ended.log
    assert f"Error while calling comfy_entrypoint in {raising}" in ended.log
    for folder in (wrong, raising):
        assert f" seconds (IMPORT FAILED): {folder}\n" in ended.log


def test_a_node_may_add_a_route(packs: Server) -> None:
    assert packs.json("/mine") == packs.json("/api/mine") == "here"


ROUTE = """
    from aiohttp import web
    from server import PromptServer

    @PromptServer.instance.routes.get("/mine")
    async def mine(request):
        return web.json_response("here")

    NODE_CLASS_MAPPINGS = {}
"""

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
