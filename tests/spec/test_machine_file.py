"""Never a traceback: any file and environment give a Machine or a SpecError."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from comfy_machine.spec import Machine, SpecError, load
from comfy_machine.spec.model import Spec
from comfy_machine.spec.urls import parse_remote

ROOT = Path(__file__).parents[2]
KEYS = [
    *Spec.model_fields, "repo", "path", "ref", "install_path", "torch", "packages", "overrides",
    "prefer", "find_links", "url", "name", "env", "folder", "extra_roots", "files", "target",
    "source", "gpus", "cpu_only", "pin", "port_start", "listen", "args", "port", "timeout",
    "command",
]  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.dates(), st.binary(max_size=5),
    st.text(max_size=12),
    st.sampled_from(["auto", "..", "/", "~", "~x", "https://[", "git@h:x", "${A}", "--port"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | st.integers(-1, 3), inner, max_size=5)
    ),
    max_leaves=25,
)


def outcome(content: bytes, environ: dict[str, str], local: bytes = b"") -> Machine | SpecError:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "machine.yaml")
        file.write_bytes(content)
        file.with_name(".env.local").write_bytes(local)
        try:
            return load(file, environ)
        except SpecError as error:
            assert error.problems  # noqa: PT017
            return error


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(list(Spec.model_fields)), VALUES, max_size=8))
def test_any_data_gives_a_machine_or_its_problems(data: dict[str, Any]) -> None:
    text = yaml.safe_dump({"workspace": "ws", "comfyui": {}, **data}, allow_unicode=True)
    outcome(text.encode("utf-8", "surrogatepass"), {})


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(alphabet="ab:-[]{}&*!%@|>'\"#?,\n\t 01~<=\\\x00é\ud800", max_size=40))
def test_any_text_gives_a_machine_or_its_problems(text: str) -> None:
    outcome(b"workspace: w\n" + text.encode("utf-8", "surrogatepass"), {})


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.dictionaries(
        st.sampled_from(
            ["NUM_GPUS", "ENABLE_COMFYUI", "COMFYUI_CUSTOM_NODES", "COMFYUI_REPO",
             "WORKSPACE_PATH", "COMFYUI_MODELS_PATH", "COMFYUI_PORT_START", "HOME"]
        ),
        st.text(max_size=10) | st.sampled_from(["a,b", "https://[", "99999", "9" * 5000, "²"]),
    ),
    st.binary(max_size=30),
)  # fmt: skip
def test_any_environment_gives_a_machine_or_its_problems(
    environ: dict[str, str], local: bytes
) -> None:
    outcome(b"workspace: w\ncomfyui: {}\ncustom_nodes: [{path: a}, 3]\n", environ, local)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(alphabet="htps:/@.[]-git~a?#%\\ \x00²", max_size=25))
def test_any_url_is_understood_or_refused(text: str) -> None:
    for url in (text, f"https://{text}", f"ssh://{text}", f"git@{text}"):
        try:
            parse_remote(url)
        except ValueError as error:
            assert type(error) is ValueError, url  # noqa: PT017


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"- " * 100_000, b"{a: " * 50_000, b"? " * 900]
)
def test_a_file_of_brackets_does_not_end_the_process(content: bytes) -> None:
    assert isinstance(outcome(content, {}), SpecError)


def test_our_machine_is_valid() -> None:
    machine = load(ROOT / "machine.yaml", {"HOME": "/home/me"})
    assert machine.comfyui.ref == "v0.33.0"
    assert len(machine.custom_nodes) == 3
    assert all(len(node.ref or "") == 40 for node in machine.custom_nodes)
