"""Where everything of a machine lies on disk. Computes paths, makes none."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The folders of one workspace."""

    workspace: Path
    overlay: Path | None = None
    """Where a plan writes what a run would write; looked at first, see `seen`."""

    def kept(self, path: Path) -> Path:
        """Where to write something below the workspace that later steps read."""
        if self.overlay is None or path.is_relative_to(self.overlay):
            return path
        return self.overlay / path.relative_to(self.workspace)

    def seen(self, path: Path) -> Path:
        """Where to read it: the overlay's if a plan has previewed it, else the real one."""
        previewed = self.kept(path)
        return previewed if os.path.lexists(previewed) else path

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
        """What a run may write and nobody reads after it."""
        return self.kept(self.machine / "scratch")

    @property
    def left(self) -> Path:
        """Untracked files of custom nodes that left machine.yaml."""
        return self.machine / "left"

    @property
    def packages(self) -> Path:
        """The Python set that was settled last, as JSON."""
        return self.receipts / "python.json"

    @property
    def garbage(self) -> Path:
        """What is to be deleted, moved out of the way."""
        return self.machine / "garbage"

    @property
    def disk(self) -> Path:
        """What the folders take on disk, as it was last measured, as JSON."""
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
        return self.seen(self.state / "current")

    @property
    def models(self) -> Path:
        """Link to the models folder; every generation's `models` points here."""
        return self.state / "models"

    @property
    def gpus(self) -> Path:
        """The UUID of each instance's GPU, with `instances.pin: uuid`."""
        return self.state / "gpus.json"

    @property
    def apps(self) -> Path:
        """PM2 configs, one per GPU."""
        return self.state / "apps"

    def rendered(self, gpu: int) -> Path:
        """The apps of a GPU as machine.yaml wants them to run."""
        return self.apps / f"gpu{gpu}.config.json"

    @property
    def stopped(self) -> Path:
        """The apps that were stopped on purpose, as JSON."""
        return self.state / "stopped.json"

    def good(self, generation: str) -> Path:
        """The apps as they were when all instances were healthy on a generation, one per GPU, and
        its Python set."""
        return self.state / "good" / generation

    @property
    def refused(self) -> Path:
        """Why the machine stays behind machine.yaml."""
        return self.state / "refused.json"

    @property
    def ports(self) -> Path:
        """The port of each instance, as it was decided."""
        return self.state / "ports.json"

    @property
    def secrets(self) -> Path:
        """Environment files that hold expanded secrets, 0600."""
        return self.state / "env"

    @property
    def dotenvs(self) -> Path:
        """What custom nodes read as their `.env`, 0600."""
        return self.secrets / "nodes"

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
        """While this file is there, workers give the instance no new job."""
        return self.instance(gpu) / "draining"

    def healthy(self, gpu: int) -> Path:
        """Says which process passed the gate, as JSON."""
        return self.instance(gpu) / "healthy.json"

    def warm(self, gpu: int) -> Path:
        """What came of the warm-up job, and of which process, as JSON."""
        return self.instance(gpu) / "warm.json"

    def reports(self, gpu: int) -> Path:
        """The load reports that its processes write."""
        return self.instance(gpu) / "reports"

    def classes(self, gpu: int) -> Path:
        """The node classes that its process has, as JSON."""
        return self.instance(gpu) / "classes.json"

    def watched(self, gpu: int) -> Path:
        """What the watcher has to say of an instance, as JSON; not there when all is well."""
        return self.instance(gpu) / "watch.json"

    def dotenv(self, node: str) -> Path:
        """The file that a custom node's `.env` links to."""
        return self.dotenvs / f"{node}.env"

    def progress(self, stage: str) -> Path:
        """How far a stage is, as JSON, for those who look from outside."""
        return self.machine / "progress" / f"{stage}.json"

    def log(self, task: str) -> Path:
        """The log of a task, `nodes:essentials` → `logs/nodes.essentials.log`."""
        name = task.replace(":", ".").replace("/", ".")
        return self.kept(self.logs / f"{name}.log")
