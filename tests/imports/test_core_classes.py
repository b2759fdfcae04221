"""The classes that a checkout names."""

from __future__ import annotations

from pathlib import Path

from comfy_machine.imports.core_classes import core_classes
from tests.rig import PROJECT

NODES = """
NODE_CLASS_MAPPINGS = {"KSampler": object, NAME: object}
NODE_CLASS_MAPPINGS.update({"Later": object})
NODE_DISPLAY_NAME_MAPPINGS = {"Shown": "A name"}
if True:
    NODE_CLASS_MAPPINGS["x"] = {"not": "this"}
"""
SCHEMA = """
class Crop(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(node_id="Crop", display_name="Crop it", inputs=[io.Image.Input("no")])
"""


def test_mappings_and_schemas_are_read_and_nothing_is_run(tmp_path: Path) -> None:
    for place, text in {
        "nodes.py": NODES + "raise SystemExit",
        "comfy_extras/nodes_crop.py": SCHEMA,
        "comfy_api_nodes/apis/more.py": "NODE_CLASS_MAPPINGS: dict = {'Partner': 1}",
        "custom_nodes/websocket_image_save.py": "NODE_CLASS_MAPPINGS = {'SaveImageWebsocket': 1}",
        "custom_nodes/pack/nodes.py": "NODE_CLASS_MAPPINGS = {'Custom': 1}",
        "comfy_extras/broken.py": "NODE_CLASS_MAPPINGS = {",
    }.items():
        file = tmp_path / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    found = core_classes(tmp_path)
    assert {"KSampler", "Later", "Crop", "Partner", "SaveImageWebsocket"} <= found
    assert not found & {"Custom", "Shown", "Crop it", "no"}


def test_a_real_tree_is_read() -> None:
    assert "SaveImageWebsocket" in core_classes(PROJECT / "examples" / "simulation" / "comfyui")
