"""The sampler of one instance, step by step."""

from __future__ import annotations

from pathlib import Path

from tasks.host.pm2.app_processes import Census
from tasks.host.system import files, private_folder
from tasks.services.health.sampling.instance_sampler import InstanceSampler
from tasks.services.health.sampling.pm2_state import Supervisor
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
    assert sampler.sample.seen.answer.reason == "comfyui-gpu0 doesn't run"
    assert len(news) <= 1, "nothing changed"
    files.remove(private_folder.folder(tmp_path))
