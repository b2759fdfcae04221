"""An image of a machine: built in layers, run with a read-only root, stopped, started again."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tests.forge import NODE
from tests.image.conftest import PASSWORD, TAG, TOKEN, UID, WORKER, Site
from tests.image.engine import Container
from tests.model_server import safetensors

pytestmark = [pytest.mark.image, pytest.mark.timeout(1200)]

KILL_PM2 = """
import os, pathlib
from comfy_machine.host.pm2 import pm2
from comfy_machine.spec.layout import Layout
os.kill(pm2.daemon(Layout(pathlib.Path("/workspace"))), 9)
"""
BUILDS = re.compile(r"^✓ (source|nodes|lock|environment|generation|supervisor|models)\b", re.M)
"""A step that made something which an image has."""


def wait(container: Container, said: str = "healthy", code: int = 0, seconds: float = 60) -> None:
    """Until the image's HEALTHCHECK says so."""
    deadline = time.monotonic() + seconds
    while True:
        answer = container.check()
        if answer[0] == code and said in answer[1]:
            return
        assert time.monotonic() < deadline, f"{answer}\n{container.output}"
        time.sleep(0.2)


def says(container: Container, what: str, times: int = 1, seconds: float = 60) -> None:
    """Until it was printed so many times."""
    deadline = time.monotonic() + seconds
    while container.output.count(what) < times:
        assert time.monotonic() < deadline, container.output
        time.sleep(0.2)


def test_a_container_is_healthy_works_stops_in_time_and_starts_again_without_building(
    site: Site, tmp_path: Path
) -> None:
    # The models are there; the other volume is empty, as a mounted folder of the host is.
    container = site.container(tmp_path, filled=("shared",))
    for _ in range(2):
        container.start()
        wait(container)
        ended, said = container.run("doit", "smoke")
        assert ended == 0, said + container.output
        assert container.stop(10) == 0
        assert BUILDS.findall(container.output) == []
        assert "comfyui-gpu1 | Stopped server" in container.output, "it had the time to end"
    made = list((tmp_path / "shared" / "outputs").rglob("*.png"))
    assert len(made) == 4
    assert {path.stat().st_uid for path in made} == {UID}
    assert "✓ validation" not in container.output


def test_the_machine_comes_back_when_pm2_dies(site: Site, tmp_path: Path) -> None:
    container = site.container(tmp_path)
    container.start()
    wait(container)
    says(container, " tasks done")
    assert container.run("/opt/comfy-machine/.venv/bin/python", "-c", KILL_PM2) == (0, "")
    # Ended, or lost some: it depends on whether the run before has ended too.
    says(container, "PM2 has ")
    says(container, " tasks done", 2)
    wait(container)
    assert container.stop(10) == 0


def test_a_machine_that_fails_stays_up_and_says_why_unless_told_otherwise(
    site: Site, tmp_path: Path
) -> None:
    container = site.container(tmp_path, token=None)
    container.start()
    wait(container, "comfyui-gpu0 is down", 1)
    says(container, "trying again in")
    assert "WORKER_TOKEN isn't set" in container.run("doit", "status")[1]
    says(container, "trying again in", 2)
    assert container.stop(10) == 0
    container.start("--once")
    assert container.wait(60) == 2
    assert "WORKER_TOKEN isn't set" in container.output


def test_no_secret_is_in_any_layer_or_label(site: Site) -> None:
    planted = [secret.encode() for secret in (PASSWORD, TOKEN, WORKER)]
    files = [path for layer in site.engine.layers(TAG)[1:] for path in layer.rglob("*")]
    files = [path for path in files if path.is_file() and not path.is_symlink()]
    assert any(path.name == "a.safetensors" or len(path.name) == 64 for path in files)
    found = [path for path in files if any(secret in path.read_bytes() for secret in planted)]
    assert found == []
    said = site.engine.buildah("inspect", "--type", "image", TAG)
    assert not [secret for secret in planted if secret.decode() in said]


def holding(site: Site, tag: str, below: str) -> list[Path]:
    """The layers that have something below a folder of the image."""
    return [layer for layer in site.engine.layers(tag) if (layer / below).exists()]


def test_labels_name_the_commits(site: Site) -> None:
    labels = site.engine.config(TAG)["Labels"]
    lock = holding(site, TAG, "machine/machine.lock")[-1] / "machine/machine.lock"
    locked = json.loads(lock.read_text())["custom_nodes"]
    assert set(locked) == set(site.repositories)
    for name, pin in locked.items():
        assert labels[f"comfy-machine.custom-node.{name}"] == pin["commit"]


def test_a_changed_node_leaves_packages_alone_and_a_changed_model_leaves_code_alone(
    site: Site,
) -> None:
    machine = "workspace/.machine"
    packages = holding(site, TAG, f"{machine}/environments")[0]
    assert list(packages.glob(f"{machine}/environments/*/lib/python*/site-packages/aiohttp"))
    site.repositories["plain"].commit({"more.py": "x = 1\n"})
    site.lock("plain")
    site.build("localhost/node")
    assert packages in holding(site, "localhost/node", f"{machine}/environments")
    code = holding(site, "localhost/node", f"{machine}/generations")
    assert code[0] not in holding(site, TAG, f"{machine}/generations")

    site.models.content["/b.safetensors"] = safetensors(10_000, seed=1)
    models: dict[str, Any] = site.rig.spec["models"]
    more = {"target": "vae/b.safetensors", "url": f"{site.models.url}/b.safetensors"}
    site.rig.spec = site.rig.spec | {"models": {"files": [*models["files"], more]}}
    site.lock()
    site.build("localhost/model")
    assert code[0] in holding(site, "localhost/model", f"{machine}/generations")
    (there,) = holding(site, "localhost/model", "workspace/shared/models/vae/b.safetensors")
    assert there


def test_another_image_takes_over_the_volumes_of_the_one_before(site: Site, tmp_path: Path) -> None:
    site.container(tmp_path).start()
    before = site.containers[-1]
    wait(before)
    assert before.stop(10) == 0
    site.repositories["plain"].commit({"other.py": "x = 2\n"})
    site.lock("plain")
    site.build("localhost/next")
    after = site.container(tmp_path, "localhost/next")
    after.start()
    wait(after)
    assert BUILDS.findall(after.output) == []
    current = (tmp_path / "state" / "current").readlink()
    (layer,) = holding(
        site, "localhost/next", f"workspace/.machine/generations/{current.name}.json"
    )
    assert layer
    assert after.stop(10) == 0


def test_a_node_that_fails_fails_the_build_by_its_name(site: Site) -> None:
    site.repositories["plain"].commit({"__init__.py": "import not_there\n"})
    site.lock("plain")
    said = site.build("localhost/failed", code=None)
    site.repositories["plain"].commit({"__init__.py": NODE.format(name="Plain")})
    site.lock("plain")
    assert "custom node plain doesn't import: ModuleNotFoundError" in said
    assert "image not known" in site.engine.buildah("images", "localhost/failed", code=None)
