"""The paths of a machine on disk. Computes paths only; creates nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The folders of one workspace."""

    workspace: Path
    overlay: Path | None = None
    """Where a plan writes; `read_path` looks there first."""

    def write_path(self, path: Path) -> Path:
        """Where to write a file of the workspace: in a plan, below the overlay."""
        if self.overlay is None or path.is_relative_to(self.overlay):
            return path
        return self.overlay / path.relative_to(self.workspace)

    def read_path(self, path: Path) -> Path:
        """Where to read it: below the overlay if a plan has written it there."""
        overlaid = self.write_path(path)
        return overlaid if os.path.lexists(overlaid) else path

    @property
    def machine(self) -> Path:
        return self.workspace / ".machine"

    @property
    def sources(self) -> Path:
        """Checkouts, `<name>@<commit>`."""
        return self.machine / "sources"

    @property
    def environments(self) -> Path:
        return self.machine / "environments"

    @property
    def generations(self) -> Path:
        return self.machine / "generations"

    @property
    def receipts(self) -> Path:
        return self.machine / "receipts"

    @property
    def logs(self) -> Path:
        return self.machine / "logs"

    @property
    def scratch(self) -> Path:
        """Temporary files of a run."""
        return self.write_path(self.machine / "scratch")

    @property
    def left(self) -> Path:
        """Untracked files of custom nodes that left machine.yaml."""
        return self.machine / "left"

    @property
    def packages(self) -> Path:
        """The last resolved Python set, as JSON."""
        return self.receipts / "python.json"

    @property
    def garbage(self) -> Path:
        """Files that are being deleted in the background."""
        return self.machine / "garbage"

    @property
    def disk(self) -> Path:
        """The last measured sizes of the folders, as JSON."""
        return self.receipts / "disk.json"

    @property
    def supervisor(self) -> Path:
        return self.machine / "supervisor"

    @property
    def state(self) -> Path:
        """What `up` writes; a volume in a container."""
        return self.machine / "state"

    @property
    def current(self) -> Path:
        """Link to the generation that instances start on."""
        return self.read_path(self.state / "current")

    @property
    def generation(self) -> Path:
        """The folder of the current generation; where the link is a loop, the link itself."""
        # Path.resolve() raises RuntimeError for a loop.
        return Path(os.path.realpath(self.current))

    @property
    def models(self) -> Path:
        """Link to the models folder; every generation's `models` points here."""
        return self.state / "models"

    @property
    def gpus(self) -> Path:
        """The UUID of each instance's GPU, with `instances.pin: uuid`."""
        return self.state / "gpus.json"

    @property
    def cordoned(self) -> Path:
        """The GPUs that are out of service, as JSON."""
        return self.state / "cordoned.json"

    @property
    def apps(self) -> Path:
        """PM2 configs, one per GPU."""
        return self.state / "apps"

    def rendered(self, gpu: int) -> Path:
        """The PM2 config of a GPU's apps."""
        return self.apps / f"gpu{gpu}.config.json"

    @property
    def stopped(self) -> Path:
        """The apps that were stopped on purpose, and each app's last stop, as JSON."""
        return self.state / "stopped.json"

    def starts(self, app: str) -> Path:
        """The last starts of an app, as JSON."""
        return self.state / "starts" / f"{app}.json"

    def good(self, generation: str) -> Path:
        """The PM2 configs and the Python set with which all instances were healthy."""
        return self.state / "good" / generation

    @property
    def refused(self) -> Path:
        """Why the machine doesn't run what machine.yaml asks for, as JSON."""
        return self.state / "refused.json"

    @property
    def ports(self) -> Path:
        """The port of each instance and of the health server, as JSON."""
        return self.state / "ports.json"

    @property
    def secrets(self) -> Path:
        """Files with expanded secrets, mode 0600."""
        return self.state / "env"

    @property
    def dotenvs(self) -> Path:
        """The `.env` files of custom nodes, mode 0600."""
        return self.secrets / "nodes"

    @property
    def jobs(self) -> Path:
        """Our NATS server's config and token, mode 0600, and its store: the jobs."""
        return self.state / "jobs"

    @property
    def jobs_token(self) -> Path:
        """The token that our NATS server asks for, mode 0600."""
        return self.jobs / "token"

    @property
    def extra_model_paths(self) -> Path:
        return self.state / "extra_model_paths.yaml"

    @property
    def inputs(self) -> Path:
        return self.workspace / "shared" / "inputs"

    def outputs(self, gpu: int) -> Path:
        return self.workspace / "shared" / "outputs" / f"gpu{gpu}"

    def instance(self, gpu: int) -> Path:
        """The instance's own folder: user, temp and databases."""
        return self.state / "instances" / f"gpu{gpu}"

    def databases(self, gpu: int) -> Path:
        """The instance's databases, one for each commit of ComfyUI."""
        return self.instance(gpu) / "databases"

    def draining(self, gpu: int) -> Path:
        """While this file exists, workers send the instance no new job."""
        return self.instance(gpu) / "draining"

    def healthy(self, gpu: int) -> Path:
        """The process that passed the gate, as JSON."""
        return self.instance(gpu) / "healthy.json"

    def answered(self, gpu: int) -> Path:
        """The process that has answered, as the watcher noted it, as JSON."""
        return self.instance(gpu) / "answered.json"

    def held(self, worker: str) -> Path:
        """While this file exists, the watcher holds a worker until its instance is healthy."""
        return self.state / "held" / worker

    def probed(self, worker: str) -> Path:
        """Why a worker fails its liveness probe, as the watcher noted it, as JSON."""
        return self.state / "probed" / f"{worker}.json"

    def warm(self, gpu: int) -> Path:
        """The result of the warm-up job and its process, as JSON."""
        return self.instance(gpu) / "warm.json"

    def reports(self, gpu: int) -> Path:
        """The load reports of its processes."""
        return self.instance(gpu) / "reports"

    def classes(self, gpu: int) -> Path:
        """The node classes of its process, as JSON."""
        return self.instance(gpu) / "classes.json"

    def watched(self, gpu: int) -> Path:
        """The watcher's remark about an instance, as JSON; absent when all is well."""
        return self.instance(gpu) / "watch.json"

    def dotenv(self, node: str) -> Path:
        """The file that a custom node's `.env` links to."""
        return self.dotenvs / f"{node}.env"

    def progress(self, stage: str) -> Path:
        """The progress of a stage, as JSON, for other processes."""
        return self.machine / "progress" / f"{stage}.json"

    def log(self, task: str) -> Path:
        """The log of a task, `nodes:essentials` → `logs/nodes.essentials.log`."""
        name = task.replace(":", ".").replace("/", ".")
        return self.write_path(self.logs / f"{name}.log")
