"""Where everything of a machine lies on disk. Pure: computes paths, touches none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The folders of one workspace."""

    workspace: Path

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
        return self.machine / "scratch"

    @property
    def left(self) -> Path:
        """Untracked files of custom nodes that left machine.yaml."""
        return self.machine / "left"

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
        return self.state / "current"

    @property
    def models(self) -> Path:
        """Link to the models folder; every generation's `models` points here."""
        return self.state / "models"

    @property
    def apps(self) -> Path:
        """PM2 configs, one per GPU."""
        return self.state / "apps"

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
        """The instance's own folder: user, temp and database."""
        return self.state / "instances" / f"gpu{gpu}"

    def dotenv(self, node: str) -> Path:
        """The file that a custom node's `.env` links to."""
        return self.dotenvs / f"{node}.env"

    def log(self, task: str) -> Path:
        """The log of a task, `nodes:essentials` → `logs/nodes.essentials.log`."""
        return self.logs / f"{task.replace(':', '.').replace('/', '.')}.log"
