"""Custom nodes that are only an address or a folder."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from comfy_machine.spec.json_schema import schema
from tests.spec.conftest import Lines, Load


@pytest.mark.parametrize(
    "address", ["https://host/a/pack", "git@host:a/pack.git", "ssh://git@host/a/pack"]
)
def test_an_address_is_a_custom_node(read: Load, address: str) -> None:
    (node,) = read(f"custom_nodes:\n  - {address}").custom_nodes
    (written,) = read(f"custom_nodes:\n  - {{url: '{address}'}}").custom_nodes
    assert node == written
    assert node.name == "pack"


@pytest.mark.parametrize("there", ["../pack", "./pack", "/srv/pack", "~/pack"])
def test_a_folder_is_a_custom_node(read: Load, there: str) -> None:
    (node,) = read(f"custom_nodes: [{there}]").custom_nodes
    assert node == read(f"custom_nodes: [{{path: {there}}}]").custom_nodes[0]
    assert (node.name, node.url) == ("pack", None)


def test_it_stands_among_others_and_is_checked_as_they_are(lines: Lines) -> None:
    text = "custom_nodes:\n  - https://host/a/pack\n  - {url: https://other/b/pack}"
    assert lines(text) == [
        "machine.yaml:5: custom_nodes[1].url: custom node pack is also custom_nodes[0]: "
        "give each its own name"
    ]
    assert lines("custom_nodes:\n  - https://me:pw@host/a/pack")[0].startswith(
        "machine.yaml:4: custom_nodes[0].url: "
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("custom_nodes: [Impact-Pack]",
         "custom_nodes[0]: must be an address: https://github.com/OWNER/Impact-Pack"),
        ("custom_nodes: [ltdrdata/Impact-Pack]",
         "custom_nodes[0]: must be an address: https://github.com/ltdrdata/Impact-Pack"),
        ("custom_nodes: [two words]",
         "custom_nodes[0]: must be an address such as https://github.com/OWNER/NAME, or a mapping"),
        ("custom_nodes: ['https://host/a/pack@v1']",
         "custom_nodes[0].url: write ref: v1 beside it, and pack without @"),
        ("custom_nodes: 'https://host/a/pack'",
         "custom_nodes: must be a list: [https://github.com/OWNER/NAME], or one on each line "
         "after -"),
        ("models: {files: ['https://host/x.safetensors']}",
         "models.files[0]: must be a mapping: {target: checkpoints/NAME.safetensors, "
         "url: https://…}"),
        ("models: {files: [{url: 'https://host/x.safetensors'}]}",
         "models.files[0].target: is required: its place below the models folder, such as "
         "checkpoints/x.safetensors"),
        ("models: {extra_roots: [/mnt/models]}",
         "models.extra_roots[0]: must be a mapping: {path: …}"),
        ("instances: {args: --lowvram}", "instances.args: must be a list: [--lowvram]"),
    ],
)  # fmt: skip
def test_what_is_no_short_form_is_told_with_what_to_write(
    lines: Lines, text: str, told: str
) -> None:
    assert lines(text) == [f"machine.yaml:3: {told}"]


@pytest.mark.parametrize("text", ["https://host/a", "v0.3.64"])
def test_a_comfyui_that_is_only_a_text_is_told_too(lines: Lines, text: str) -> None:
    assert lines(minimal=f"workspace: ws\ncomfyui: {text}\n") == [
        "machine.yaml:2: comfyui: must be a mapping, such as {repo: https://…, ref: v0.3.64} or "
        "{path: …}"
    ]


def test_an_editor_knows_the_short_form() -> None:
    machine = {"workspace": "w", "comfyui": {}}
    assert Draft202012Validator(schema()).is_valid(
        machine | {"custom_nodes": ["https://host/a", {"path": "x"}]}
    )
    assert not Draft202012Validator(schema()).is_valid(machine | {"custom_nodes": [7]})
