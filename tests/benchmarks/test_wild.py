"""The benchmark of real custom nodes runs, tiny: no figure is held to a limit here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

from tests.forge import Forge
from tests.rig import PROJECT, SIMULATOR, free_ports


def test_it_goes_from_a_plain_list_to_a_healthy_machine_and_adds_a_pack(
    forge: Forge, tmp_path: Path
) -> None:
    broken = forge.node("broken", {"__init__.py": "import nowhere_to_be_found\n"})
    nodes: list[dict[str, object]] = [{"url": broken.url}, {"url": forge.node("sound").url}]
    spec = {
        "workspace": "workspace",
        "comfyui": {"path": str(SIMULATOR)},
        "python": {"torch": "none"},
        "custom_nodes": nodes,
        "instances": {"cpu_only": True, "gpus": 1, "port_start": free_ports(1)},
        "health": {"port": free_ports(1)},
    }
    plain, edited = tmp_path / "plain.yaml", tmp_path / "edited.yaml"
    plain.write_text(yaml.safe_dump(spec))
    nodes[0] |= {"optional": True}
    edited.write_text(yaml.safe_dump(spec))
    added = forge.node("added").url
    program = [sys.executable, "-m", "tests.benchmarks.wild"]
    ended = subprocess.run(
        [*program, str(plain), str(edited), "--rounds", "1", "--add", added],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = ended.stdout
    assert ended.returncode in (0, 1), said + ended.stderr
    assert "run 1 of plain.yaml: exit code 2" in said, said + ended.stderr
    assert "run 2 of edited.yaml: exit code 0" in said, said + ended.stderr
    for figure in ("runs until", "a second run over doit itself", "the proof over a bare"):
        assert figure in said, said + ended.stderr
    assert "failed" not in said, said
