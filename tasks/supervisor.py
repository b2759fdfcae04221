"""PM2, installed from npm with the Node of a Python wheel."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from .engine.run import Run
from .engine.step import Task, step
from .host.pm2 import pm2
from .host.system import files, process
from .host.system.failure import Failure
from .spec.layout import Layout

TIMEOUT = 600.0
"""Seconds for npm."""


def tasks(run: Run) -> Iterator[Task]:
    layout = run.layout
    yield step(
        run,
        "supervisor",
        f"PM2 {pm2.VERSION}, installed",
        check=partial(_why_missing, layout),
        action=partial(_install, run),
        after=["directories"],
        garbage=partial(_garbage, layout),
    )


def _why_missing(layout: Layout) -> str | None:
    folder = pm2.folder(layout)
    receipt = files.read_receipt(folder / pm2.RECEIPT)
    if receipt.get("version") != pm2.VERSION or not pm2.script(layout).is_file():
        return f"PM2 {pm2.VERSION} isn't installed"
    return None


def _install(run: Run, log: Path) -> None:
    run.doing(f"npm installs PM2 {pm2.VERSION}")
    with files.staging(pm2.folder(run.layout)) as folder:
        folder.mkdir()
        try:
            try:
                _npm_install(folder, log, "--prefer-offline")
            except process.CommandFailed as failed:
                # npm's cache is too old to know the version.
                if "ETARGET" not in failed.output:
                    raise
                _npm_install(folder, log, "--prefer-online")
        except process.CommandFailed as failed:
            raise Failure(
                f"PM2 {pm2.VERSION} can't be installed from npm ({_gist(failed.output)}): "
                "check that npm's registry is reachable (npm_config_registry, https_proxy)",
                log,
            ) from failed
        receipt = {"version": pm2.VERSION, "content": pm2.content(folder)}
        files.write_receipt(folder / pm2.RECEIPT, receipt)


def _npm_install(folder: Path, log: Path, preference: str) -> None:
    npm = pm2.node().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    argv = [
        pm2.node(), npm, "install", "--prefix", folder, "--no-audit", "--no-fund", preference,
        "--no-update-notifier", "--ignore-scripts", "--loglevel=error", f"pm2@{pm2.VERSION}",
    ]  # fmt: skip
    # npm looks for `node` on the PATH.
    env = process.allowed_environment(os.environ, installer=True)
    env["PATH"] = f"{pm2.node().parent}:{env.get('PATH', os.defpath)}"
    process.run(argv, env=env, cwd=folder, log=log, timeout=TIMEOUT)


def _gist(output: str) -> str:
    """The line of npm's error output with the cause; the last line only names npm's log."""
    found = re.search(r"^npm error .*?(request to .+|No matching .+)$", output, re.M)
    return found[1] if found else process.last_line(output)


def _garbage(layout: Layout) -> list[Path]:
    return [] if pm2.daemon(layout) else list(layout.supervisor.glob("*"))
