"""The sampler of one instance, step by step."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from comfy_machine.host.comfyui import load_result
from comfy_machine.host.comfyui.load_result import Outcome, Result
from comfy_machine.host.pm2 import apps
from comfy_machine.host.pm2.app_processes import Census
from comfy_machine.host.system import files, private_folder
from comfy_machine.services.health.model.facts import Build
from comfy_machine.services.health.sampling.instance_sampler import InstanceSampler
from comfy_machine.services.health.sampling.pm2_state import Supervisor
from tests.contract.client import until
from tests.rig import free_ports
from tests.services import moments as m


def test_the_history_of_one_that_does_not_run_grows_no_faster(tmp_path: Path) -> None:
    settings = m.settings(workspace=tmp_path)
    news: list[None] = []
    census = Census(tmp_path, 10)
    sampler = InstanceSampler(
        m.GPU0, lambda: settings, census, Supervisor(tmp_path, census), lambda: news.append(None)
    )
    for _ in range(20):
        sampler.step()
    assert len(sampler.sample.history) == 1, "a point every five seconds"
    assert sampler.sample.observation.answer.reason == "comfyui-gpu0 doesn't run"
    assert len(news) <= 1, "nothing changed"
    files.remove(private_folder.folder(tmp_path))


def test_an_instance_is_compared_with_the_build_that_it_was_started_on(tmp_path: Path) -> None:
    settings = m.settings(workspace=tmp_path)
    old, new = (settings.layout.generations / name for name in ("old", "new"))
    for generation, classes in ((old, ("Here",)), (new, ("Here", "Gone"))):
        (generation / "ComfyUI").mkdir(parents=True)
        found = {"pack": Result(Outcome.LOADED, classes=classes), "bad": Result(Outcome.FAILED)}
        load_result.write(generation, found, [])
    settings.layout.state.mkdir()
    files.point(settings.layout.current, new)
    words = [f"{old}/ComfyUI/main.py", "--disable-all-custom-nodes", "--whitelist-custom-nodes"]
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(1000)", *words, "pack"],
        env={apps.WORKSPACE: str(tmp_path), apps.NAME: m.GPU0.name, apps.PORT: str(free_ports(1))},
    ) as process:
        try:
            census = Census(tmp_path, 0)
            supervisor = Supervisor(tmp_path, census)
            sampler = InstanceSampler(
                m.GPU0, lambda: settings, census, supervisor, lambda: None
            )  # fmt: skip

            def seen() -> bool:
                sampler.step()
                return sampler.sample.build.selected is not None

            until(seen, 20, "the process")
            assert sampler.sample.build == Build(
                {"pack": ("Here",)}, frozenset({"bad"}), frozenset({"pack"})
            )
        finally:
            process.kill()
    files.remove(private_folder.folder(tmp_path))
