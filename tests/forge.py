"""Real git repositories in tmp, for tests that clone."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

NODE = """
class {name}:
    CATEGORY = "test"
    FUNCTION = "run"
    RETURN_TYPES = ()
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {{"required": {{}}}}

    def run(self):
        return ()


NODE_CLASS_MAPPINGS = {{"{name}": {name}}}
"""


@dataclass(frozen=True)
class Repository:
    """A repository with a work tree; tests clone it by its file:// URL."""

    folder: Path

    @property
    def url(self) -> str:
        return self.folder.as_uri()

    def git(self, *arguments: str) -> str:
        env = os.environ | {
            f"GIT_{role}_{key}": value
            for role in ("AUTHOR", "COMMITTER")
            for key, value in (("NAME", "test"), ("EMAIL", "test@localhost"))
        }
        return subprocess.run(
            ["git", "-c", "maintenance.auto=false", *arguments],
            cwd=self.folder,
            env=env,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def commit(self, files: dict[str, str | None], tag: str | None = None) -> str:
        """Write files (None removes one), commit, and return the commit."""
        for name, text in files.items():
            path = self.folder / name
            if text is None:
                path.unlink()
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "-m", f"change {sorted(files)}")
        if tag:
            self.git("tag", tag)
        return self.git("rev-parse", "HEAD")


@dataclass(frozen=True)
class Forge:
    """Makes repositories below one folder."""

    folder: Path

    def repository(self, name: str, files: dict[str, str | None] | None = None) -> Repository:
        repository = Repository(self.folder / name)
        repository.folder.mkdir(parents=True)
        repository.git("init", "--quiet", "--initial-branch=main")
        repository.commit(files or {"README.md": name})
        return repository

    def copy(self, name: str, folder: Path) -> Repository:
        """A repository with the files of a folder."""
        shutil.copytree(folder, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        repository = Repository(self.folder / name)
        repository.git("init", "--quiet", "--initial-branch=main")
        repository.commit({})
        return repository

    def node(self, name: str, files: dict[str, str | None] | None = None) -> Repository:
        """A custom node with one class, named like the repository."""
        text = NODE.format(name=name.replace("-", "_").title())
        return self.repository(name, {"__init__.py": text, **(files or {})})
