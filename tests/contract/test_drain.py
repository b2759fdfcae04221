"""A ComfyUI that runs as an instance refuses jobs while its drain mark is there."""

from __future__ import annotations

import sys

from comfy_machine.host.comfyui import api
from comfy_machine.host.python import pth_hook
from tests.contract.client import picture, preview
from tests.contract.installation import Installation
from tests.rig import PROJECT


def test_new_jobs_are_refused_and_the_end_of_the_last_one_is_known(comfyui: Installation) -> None:
    base = comfyui.base()
    # What an environment of a machine has as a .pth file.
    base.add("site/sitecustomize.py", pth_hook.LINE)
    shim = PROJECT / "tasks" / "services" / "shim.py"
    reports = base.path / "gpu0" / "reports"
    before = [sys.executable, "-I", str(shim), "--report", str(reports), "--"]
    env = {"PYTHONPATH": str(base.path / "site")}
    server = comfyui.wait(comfyui.launch(base, env=env, before=before))
    port = int(server.url.rsplit(":", 1)[1])
    assert api.last_end("127.0.0.1", port) == 0
    job = {"1": picture(), "2": preview("1")}
    ended = server.run(job)["status"]["messages"][-1][1]["timestamp"] / 1000
    assert api.last_end("127.0.0.1", port) == ended
    base.add("gpu0/draining")
    for path in ("/prompt", "/api/prompt"):
        refused = server.post(path, json={"prompt": job})
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert refused.json()["node_errors"] == {}
    probed = api.probe("127.0.0.1", port, 30)
    assert (probed.healthy, probed.queue, probed.submitted) == (True, 0, 0)
    assert server.json("/queue") == {"queue_running": [], "queue_pending": []}
    (base.path / "gpu0" / "draining").unlink()
    server.run(job)
