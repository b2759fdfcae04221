from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from comfy_machine.spec.json_schema import schema

ROOT = Path(__file__).parents[2]
OUTLINE = """
workspace: /workspace
comfyui: {repo: https://host/ComfyUI.git, ref: v0.3.64, install_path: ComfyUI}
python: {torch: auto, overrides: [], prefer: {}, find_links: [], extra_index_urls: []}
custom_nodes:
  - {url: https://host/a, ref: 8.15.3}
  - {url: https://host/b, name: c, ref: d, recursive: true, requirements: false,
     env: {HF_TOKEN: "${HF_TOKEN}"}, script: install.py, script_timeout: 600, optional: true}
  - {path: ../my-node}
models:
  folder: shared/models
  store: store
  extra_roots: [{path: /mnt/nas/models, read_only: true}]
  tokens: {huggingface.co: "${HF_TOKEN}", civitai.com: "${CIVITAI_TOKEN}"}
  files:
    - {target: checkpoints/sd15.safetensors, url: https://host/x, sha256: abc, optional: false}
    - {target: checkpoints/xl.safetensors, source: sd_models/xl.safetensors}
instances:
  gpus: auto
  cpu_only: false
  pin: index
  port_start: 8188
  port_conflict: fail
  listen: 127.0.0.1
  args: [--reserve-vram, 2]
  env: {}
  overrides: {"1": {args: [--lowvram], port: 8200, env: {}}}
  drain_timeout: 600
  drain_settle: 5
  job_timeout: 3600
  restart_unhealthy: true
  limits: {memory: null, nice: 0, open_files: null}
  logs: {max_size: 50M, max_age: 7, keep: 5}
health: {server: true, port: 9090, listen: 127.0.0.1, token: "${T}", timeout: 300,
         warmup: smoke, canary: canary.json, canary_every: 300}
workers:
  - {name: worker, command: [run], env: {A: "${instance.port}"}, cwd: srv, per: instance,
     restart_with_instance: false, stop_timeout: 30,
     health: {url: "http://127.0.0.1:80", timeout: 5}}
machine_id: box-7
retention: {generations: 3}
"""


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    Draft202012Validator.check_schema(schema())
    return Draft202012Validator(schema())


@pytest.mark.parametrize("text", [OUTLINE, (ROOT / "machine.yaml").read_text()])
def test_the_outline_and_our_machine_are_valid(validator: Draft202012Validator, text: str) -> None:
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.parametrize(
    "change", [{"port": 1}, {"instances": {"gpus": "all"}}, {"custom_nodes": [{"reff": "x"}]}]
)
def test_an_editor_marks_what_the_loader_refuses(
    validator: Draft202012Validator, change: dict[str, Any]
) -> None:
    assert not validator.is_valid({"workspace": "w", "comfyui": {}, **change})


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "properties" in node:
            yield node
        node = list(node.values())
    for inner in node if isinstance(node, list) else []:
        yield from _objects(inner)


def test_every_field_is_described_and_no_other_is_allowed() -> None:
    found = list(_objects(schema()))
    assert len(found) > 10
    for part in found:
        assert part["additionalProperties"] is False
        assert [
            name for name, field in part["properties"].items() if "description" not in field
        ] == []
