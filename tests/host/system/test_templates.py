"""Templates stay well-formed whatever the values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import UndefinedError

from comfy_machine.host.system import templates

HOSTILE = [
    "plain",
    "",
    "with space",
    """both " and ' quotes""",
    "back\\slash \\n \\u0041",
    "line\nbreak\ttab\r\x00\x1b",
    "${HOME} $HOME `id` $(id) %s {{ x }} {% raw %} #{x}",
    "üñí 漢字 \u2028 \u2029",
    "🚀",
    "</script><!-- & -->",
    "- yaml: [x] # no comment",
    "null",
]


def app(value: str) -> dict[str, Any]:
    return {
        "name": value,
        "cwd": value,
        "command": [value, value, "--flag=" + value],
        "env": {"KEY": value, value or "EMPTY": "x"},
        "log": value,
        "secrets": {"TOKEN": "secret-canary"},
    }


@pytest.mark.parametrize("value", HOSTILE)
def test_a_pm2_config_is_json_that_says_what_was_meant(value: str) -> None:
    text = templates.render("instance.config.json.j2", apps=[app("first"), app(value)])
    second = json.loads(text)["apps"][1]
    assert second["name"] == second["cwd"] == value
    shell = ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh"]
    assert [second["script"], *second["args"]] == [*shell, value, value, "--flag=" + value]
    assert second["env"] == {"KEY": value, value or "EMPTY": "x"}
    assert second["out_file"] == second["error_file"] == value
    assert "secret-canary" not in text
    # PM2 evaluates it as JavaScript
    assert "\u2028" not in text


def test_a_pm2_config_gives_up_on_a_crash_loop_and_lets_comfyui_stop() -> None:
    text = templates.render("instance.config.json.j2", apps=[app("x")])
    (rendered,) = json.loads(text)["apps"]
    # what was measured to end a crash loop, and longer than the 1.7 s that ComfyUI needs
    assert rendered["min_uptime"] == 30000
    assert rendered["max_restarts"] == 3
    assert rendered["kill_timeout"] >= 5000
    assert "restart_delay" not in rendered
    assert rendered["interpreter"] == "none"


@pytest.mark.parametrize(
    "value", [value for value in HOSTILE if "\0" not in value and value != "🚀"]
)
def test_extra_model_paths_is_yaml_with_the_roots_and_kinds(value: str) -> None:
    kinds = {"checkpoints": "checkpoints", "on": "on", "1.5": "1.5"}
    names = {kind: (name,) for kind, name in kinds.items()} | {"loras": ("loras", "lora of us")}
    folders = [(Path("/first"), names), (Path("/mnt") / value, names)]
    text = templates.render("extra_model_paths.yaml.j2", folders=folders)
    kinds["loras"] = "loras\nlora of us\n"
    assert yaml.safe_load(text) == {
        "root1": {"base_path": "/first", **kinds},
        "root2": {"base_path": str(Path("/mnt") / value), **kinds},
    }


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        templates.render("instance.config.json.j2")
