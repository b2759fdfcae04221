"""Instances that speak https: everything of ours speaks to them, and knows it by the process."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trustme

from tests.conftest import MachineMaker
from tests.rig import free_ports
from tests.services.test_server import Asker, Told


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The flags with a key and a certificate that are for another host, and that nobody signed."""
    folder = tmp_path_factory.mktemp("tls")
    made = trustme.CA().issue_cert("comfyui.example")
    made.private_key_pem.write_to_path(str(folder / "key.pem"))
    made.cert_chain_pems[0].write_to_path(str(folder / "certificate.pem"))
    return [
        *("--tls-keyfile", str(folder / "key.pem")),
        *("--tls-certfile", str(folder / "certificate.pem")),
    ]


def test_a_machine_of_https_instances_is_healthy_and_works(
    machine: MachineMaker, certificate: list[str]
) -> None:
    rig = machine(
        instances={"gpus": 2, "overrides": {1: {"args": certificate}}},
        health={"server": True, "port": free_ports(1), "warmup": "smoke", "canary": "smoke",
                "canary_every": 1},
        workers=[{"name": "worker", "command": ["sh", "-c", "env > $FILE; sleep 1d"],
                  "env": {"FILE": "${instance.name}.env"}}],
    )  # fmt: skip
    rig.doit()
    assert rig.healthy(0)
    assert rig.healthy(1, "https")
    assert not rig.healthy(1), "it speaks https alone"
    assert f"COMFYUI_URL=https://127.0.0.1:{rig.port(1)}\n" in _env(rig.workspace, 1)
    assert f"COMFYUI_URL=http://127.0.0.1:{rig.port(0)}\n" in _env(rig.workspace, 0)
    assert "WORKER_COMFYUI_HOST=127.0.0.1\n" in _env(rig.workspace, 1)

    assert rig.doit("smoke").output.count("✓ comfyui-gpu") == 2
    assert len(re.findall(r"comfyui-gpu[01] .*healthy", rig.doit("status").output)) == 2
    rig.doit("probe")
    assert rig.doit().executed == set()

    def proved(told: Told) -> bool:
        canary = told["layers"]["functional"]["canary"]
        return bool(told["status"] == "healthy" and canary and canary["ok"])

    for gpu in (0, 1):
        Asker(rig).until(f"/instances/{gpu}", proved)

    before = rig.running()["comfyui-gpu1"].pid
    rig.doit("restart", "comfyui-gpu1")
    assert rig.healthy(1, "https")
    assert rig.running()["comfyui-gpu1"].pid != before


def _env(workspace: Path, gpu: int) -> str:
    return (workspace / f"comfyui-gpu{gpu}.env").read_text()


def test_what_runs_is_spoken_to_as_it_was_started(
    machine: MachineMaker, certificate: list[str]
) -> None:
    rig = machine()
    rig.doit()
    rig.spec["instances"]["args"] = certificate
    assert "healthy" in rig.doit("status").output, "http until it is replaced"
    rig.doit()
    assert rig.healthy(0, "https")
    rig.spec["instances"]["args"] = []
    assert "✓ comfyui-gpu0" in rig.doit("smoke").output, "https until it is replaced"
    rig.doit()
    assert rig.healthy()


def test_key_and_certificate_must_be_files_that_belong_together(
    machine: MachineMaker, certificate: list[str], tmp_path: Path
) -> None:
    rig = machine(instances={"args": [*certificate[:3], str(tmp_path / "none.pem")]})
    rig.doit("build")
    run = rig.doit(code=2)
    assert "none.pem can't be read: No such file or directory" in run.output
    assert "machine.yaml:" in run.output
    other = tmp_path / "none.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    run = rig.doit(code=2)
    assert f"{other} doesn't match the key {certificate[1]}" in run.output
    assert run.failed == {"limits"}
    assert rig.running() == {}
