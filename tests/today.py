"""Does it still work with the newest of everything? What once broke had not changed here.

Runs the main job of a machine file without its lock and without the refs in it: the newest
ComfyUI of a repository, the newest commit of each custom node, the newest torch and packages that
fit. Builds, starts, runs a job, runs `doit` a second time, and has the contract suite ask that
ComfyUI for the flags and shapes that comfy-machine relies on. Then it compares with the last run,
and says what moved and what no longer holds.

    python -m tests.today [--machine FILE] [--comfyui URL] [--torch CHOICE] [--state FOLDER]

The state folder keeps the lock and the findings of the last run. Ends with 1 when something no
longer holds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from comfy_machine.host.comfyui import load_result
from comfy_machine.host.system import files
from comfy_machine.spec.layout import Layout

PROJECT = Path(__file__).parents[1]
DOIT = Path(sys.executable).parent / "doit"
INSTALL, CONTRACT = 3600.0, 3600.0
"""Seconds that an install, and the contract suite, may take."""
SUITE = ("test_flags.py", "test_jobs.py", "test_lifecycle.py", "test_custom_nodes.py")
"""What of the contract suite machines rest on."""


@dataclass
class Today:
    """One run, in a folder that it keeps."""

    state: Path
    spec: dict[str, Any]
    wrong: list[str] = field(default_factory=list)
    """What does not hold."""

    @property
    def file(self) -> Path:
        return self.state / "machine.yaml"

    @property
    def layout(self) -> Layout:
        return Layout(self.state / "workspace")

    def run(self, contract: Sequence[str]) -> None:
        """Do the main job, as far as it goes."""
        self._clear()
        self.file.write_text(yaml.safe_dump(self.spec, sort_keys=False))
        try:
            if self._doit("build"):
                self._nodes()
                if self._doit("up") and self._doit("smoke"):
                    self._again()
                if contract:
                    self._contract(contract)
        finally:
            self._doit("down")

    def _clear(self) -> None:
        if self.layout.workspace.exists():
            self._doit("down")
            files.remove(self.layout.workspace)
        self.file.with_suffix(".lock").unlink(missing_ok=True)

    def _doit(self, *words: str) -> bool:
        ended = self._call(*words)
        if ended.returncode:
            lines = re.findall(r"^ *✗ (\S+: .+)$", ended.stdout, re.M)
            said = lines or ended.stdout.strip().splitlines()[-1:]
            self.wrong += [f"doit {' '.join(words)}: {line}" for line in said]
        return not ended.returncode

    def _call(self, *words: str) -> subprocess.CompletedProcess[str]:
        print(f"$ doit {' '.join(words)}", flush=True)
        ended = subprocess.run(
            [DOIT, *words, f"machine={self.file}"], cwd=PROJECT, timeout=INSTALL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        print(ended.stdout, flush=True)
        return ended

    def _nodes(self) -> None:
        """Custom nodes, and ComfyUI's own, that the newest of everything breaks."""
        for name, result in load_result.read(self.layout.current.resolve()).items():
            if result.failed:
                self.wrong.append(f"custom node {name} {result}")
            elif result.outcome is load_result.Outcome.UNKNOWN:
                self.wrong.append(f"what becomes of custom node {name} is not known any more")

    def _again(self) -> None:
        ended = self._call()
        executed = re.findall(r"^✓ (\S+) +[\d.]+ s$", ended.stdout, re.M)
        if ended.returncode or executed:
            self.wrong.append(f"a second run has something to do: {', '.join(executed)}")

    def _contract(self, suite: Sequence[str]) -> None:
        comfyui = self.layout.current.resolve() / "ComfyUI"
        real = {
            "REAL_COMFYUI_DIR": str(comfyui),
            "REAL_COMFYUI_PYTHON": str(comfyui.parent / "environment" / "bin" / "python"),
        }
        report = self.state / "contract.xml"
        argv = [sys.executable, "-m", "pytest", "-q", "-k", "real", "-p", "no:cacheprovider",
                f"--junitxml={report}", *(f"tests/contract/{name}" for name in suite)]  # fmt: skip
        print(f"$ {' '.join(argv[1:])}", flush=True)
        ended = subprocess.run(argv, cwd=PROJECT, env=os.environ | real, timeout=CONTRACT)
        if ended.returncode:
            self.wrong += [f"contract: {name}" for name in _failed_tests(report)]

    def findings(self) -> dict[str, Any]:
        """What the next run is compared with."""
        told = [files.read_receipt(file) for file in self.layout.sources.glob("*.code.json")]
        code = told[0] if told else {}
        return {
            "moved": dict(_versions(files.read_receipt(self.file.with_suffix(".lock")))),
            "flags": code.get("flags"),
            "folder_types": sorted(code.get("folder_types") or ()),
            "wrong": self.wrong,
        }


def _versions(lock: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name → version or commit of everything that a lock holds."""
    if comfyui := lock.get("comfyui"):
        yield "ComfyUI", str(comfyui.get("commit"))[:12]
    for name, pin in (lock.get("custom_nodes") or {}).items():
        yield f"custom node {name}", str(pin.get("commit"))[:12]
    for name, package in ((lock.get("python") or {}).get("packages") or {}).items():
        yield name, str(package.get("version") or package.get("commit") or package.get("url"))


def _failed_tests(report: Path) -> Iterator[str]:
    from xml.etree import ElementTree

    if not report.exists():
        yield "it did not run"
        return
    for case in ElementTree.parse(report).iter("testcase"):
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        if bad is not None:
            yield f"{case.get('name')}: {str(bad.get('message')).splitlines()[0][:200]}"


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What moved since the last run, in lines."""
    old, new = before.get("moved", {}), now["moved"]
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield f"{name} {old.get(name, 'new')} → {new.get(name, 'gone')}"
    for what in ("flags", "folder_types"):
        was, there = before.get(what), now[what]
        if was is not None and there is not None and was:
            for name in sorted({*was} ^ {*there}):
                yield f"{what.replace('_', ' ')}: {name} {'gone' if name in was else 'new'}"


def newest(spec: dict[str, Any], comfyui: str | None, torch: str | None) -> dict[str, Any]:
    """A machine file without what holds it back, for a machine of its own."""
    code = {k: v for k, v in spec["comfyui"].items() if k not in ("ref", "path", "install_path")}
    if comfyui:
        code["repo"] = comfyui
    python = dict(spec.get("python") or {})
    if torch:
        python["torch"] = torch
    instances = {**(spec.get("instances") or {}), "port_start": 18188, "port_conflict": "next"}
    if not list(Path("/dev").glob("nvidia[0-9]*")):
        instances |= {"cpu_only": True, "gpus": 2}
    return {
        **spec,
        "workspace": "workspace",
        "comfyui": code,
        "python": python,
        "custom_nodes": [
            {key: value for key, value in node.items() if key != "ref"}
            for node in spec.get("custom_nodes") or ()
        ],
        "instances": instances,
        "health": {**(spec.get("health") or {}), "port": _free_port()},
    }


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--machine", type=Path, default=PROJECT / "machine.yaml")
    parser.add_argument("--comfyui", help="repository; default: the machine file's")
    parser.add_argument("--torch", help="python.torch; default: the machine file's")
    parser.add_argument("--state", type=Path, default=Path.home() / ".cache/comfy-machine/today")
    parser.add_argument("--contract", nargs="*", default=SUITE, help="files of tests/contract")
    wanted = parser.parse_args()
    spec = yaml.safe_load(wanted.machine.read_text())
    wanted.state.mkdir(parents=True, exist_ok=True)
    kept = wanted.state / "last.json"
    before = json.loads(kept.read_text()) if kept.exists() else {}
    today = Today(wanted.state, newest(spec, wanted.comfyui, wanted.torch))
    today.run(wanted.contract)
    now = today.findings()
    shutil.copy(today.file, wanted.state / "last.yaml")
    files.write_text(kept, json.dumps(now, indent=1))
    for line in difference(before, now) if before else ["first run: nothing to compare with"]:
        print(f"moved: {line}")
    for line in today.wrong:
        known = " (as in the last run)" if line in before.get("wrong", ()) else ""
        print(f"no longer holds: {line}{known}")
    print("all holds" if not today.wrong else f"{len(today.wrong)} no longer hold")
    return 1 if today.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
