"""`doit build` against comfy-cli, doing the same work: ComfyUI and custom nodes with requirements.

Both sides get the same local git repositories, under URLs that only this run's git settings know,
the same interpreter, and the same package caches. These are filled first; then both work offline,
so that nothing measured waits for a network, and take turns in going first. A step counts only
when it succeeded and what it should have made is there: every node, its requirements importable,
its install script run. Everything is in a temporary folder, HOME included; only the bytecode of
this project's own modules is not.

What is compared, and how it leans towards comfy-cli:

- comfy-cli installs ComfyUI in its faster way (with pip or `--fast-deps`), and nodes in their
  fastest (with pip, `--fast-deps` or `--uv-compile`), found by trying each. Ways of installing
  nodes that come close to each other are measured in every round, and the fastest counts.
- Its pip has a folder of wheels, which is faster than its cache: no index is asked.
- Its home is kept between rounds; ours is new in each, so our cache of repositories is empty.
- Our build proves that ComfyUI starts and every node imports, and installs PM2; comfy-cli does
  neither.
- `comfy node install` works only with ComfyUI-Manager in the environment, so a cold build of
  comfy-cli contains it. The lines "Manager not counted" are the same steps with `--skip-manager`.

The local ComfyUI is examples/simulation/comfyui, or that of `--comfyui`. What ComfyUI-Manager
needs and an older or simulated ComfyUI lacks is added to it, for both sides.

With `--alone` comfy-cli takes no part, nothing is measured twice and nothing is offline.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from comfy_machine.host.system import private_folder
from tests.benchmarks import figures
from tests.forge import NODE

PROJECT = Path(__file__).parents[2]
SIMULATOR = PROJECT / "examples" / "simulation" / "comfyui"
BIN = Path(sys.executable).parent
COMFY_CLI = "comfy-cli==1.23.*"
HOST = "https://forge.invalid/"
"""Where the repositories seem to be: comfy-cli refuses file:// URLs. Git is told better."""
BRANCH = "main"
SETTINGS = frozenset(
    """MACHINE NUM_GPUS ENABLE_COMFYUI WORKSPACE_PATH VIRTUAL_ENV CONDA_PREFIX PYTHONPATH
    PYTHONDONTWRITEBYTECODE""".split()
)
"""Variables of the caller that would change what a side does or slow it; COMFYUI_* besides."""
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
MARK = "installed-by-script"

PIP, FAST_DEPS, UV_COMPILE = "pip", "--fast-deps", "--uv-compile"
OPTIONS = {PIP: [], FAST_DEPS: [FAST_DEPS], UV_COMPILE: [UV_COMPILE]}
CLOSE = 1.5
"""How much slower than the fastest a mode may be in the trial and still take part in the rounds."""

OURS, THEIRS = "ours", "theirs"
COLD, AGAIN, ADD = "cold build", "second run", "adding one node"
INSTALL, NODES = "comfy install", "comfy node install"
MANY = "many"
BARE = "  Manager not counted"


@dataclass(frozen=True)
class Pack:
    """A custom node: what it asks for, and what of that it imports."""

    requirements: str = ""
    imports: tuple[str, ...] = ()
    script: bool = False


PACKS = (
    Pack("numpy>=1.26\n", ("numpy",)),
    Pack("# progress\ntqdm>=4.60  # bars\n", ("tqdm",)),
    Pack("piexif==1.1.3\n", ("piexif",)),
    Pack("requests[socks]>=2.31\n", ("requests", "socks")),
    Pack('packaging>=23; python_version >= "3.8"\ncolorama; sys_platform == "win32"\n'),
    Pack("jinja2<4\nmarkdown-it-py\n", ("jinja2", "markdown_it")),
    Pack("imageio>=2.34\nPillow\n", ("imageio", "PIL")),
    # Its antlr4-python3-runtime has no wheel.
    Pack("PyYAML>=6\nomegaconf>=2.3\n", ("yaml", "omegaconf")),
    Pack(script=True),
    Pack(),
)
ADDED = Pack("einops>=0.7\n", ("einops",))

SCRIPT = f"""\
from pathlib import Path

Path(__file__).with_name("{MARK}").touch()
"""
FOR_MANAGER = {
    # comfy-cli installs its Manager from here; newer ComfyUI has this file.
    "manager_requirements.txt": "comfyui_manager\n",
    # The first of ComfyUI that the Manager imports. Real ComfyUI reads no arguments then.
    "utils/__init__.py": "",
    "utils/extra_config.py": """\
import sys

arguments, sys.argv = sys.argv, sys.argv[:1]
import folder_paths

sys.argv = arguments


def load_extra_path_config(yaml_path):
    pass
""",
    "comfy/cli_args.py": "from simulation.flags import args\n",
}


class StepError(Exception):
    """A step of one side failed, or didn't make what it should have."""


@dataclass
class Bench:
    """What both sides share: the folder, the repositories, the environment, what was measured."""

    folder: Path
    torch: str
    offline: bool = False
    caches: Path | None = None
    """Folder of the package caches, when it isn't one of our own."""
    measured: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    tasks: dict[str, list[dict[str, float]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def forge(self) -> Path:
        return self.folder / "forge"

    @property
    def wheels(self) -> Path:
        return self.folder / "caches" / "wheels"

    def environment(self, home: Path) -> dict[str, str]:
        """The caller's environment, with everything that is written sent to the folder."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in SETTINGS and not name.startswith(("COMFYUI_", "XDG_"))
        }
        if CERTIFICATES.exists():
            kept.setdefault("UV_SYSTEM_CERTS", "true")
        caches = self.caches or self.folder / "caches"
        made = {
            "HOME": home,
            "TMPDIR": self.folder / "tmp",
            "XDG_CACHE_HOME": home / ".cache",
            "XDG_CONFIG_HOME": home / ".config",
            "XDG_DATA_HOME": home / ".local" / "share",
            "XDG_STATE_HOME": home / ".local" / "state",
            "UV_CACHE_DIR": caches / "uv",
            "PIP_CACHE_DIR": caches / "pip",
            "npm_config_cache": caches / "npm",
            "GIT_CONFIG_GLOBAL": self.folder / "gitconfig",
            "GIT_CONFIG_SYSTEM": os.devnull,
        }
        made |= {"PIP_FIND_LINKS": self.wheels} if self.offline else {}
        alone = {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1", "npm_config_offline": "true"}
        for path in (home / ".config", home / ".cache", self.folder / "tmp"):
            path.mkdir(parents=True, exist_ok=True)
        return {
            **kept,
            **{name: str(value) for name, value in made.items()},
            **(alone if self.offline else {}),
            "DO_NOT_TRACK": "1",
            "PYTHONUNBUFFERED": "1",
        }

    def record(self, step: str, side: str, seconds: float) -> None:
        self.measured[step, side].append(seconds)


def run(command: Sequence[str | Path], env: dict[str, str], cwd: Path) -> tuple[float, str]:
    """Seconds that a command took, and its output. Raises StepError with it when it fails."""
    code, seconds, output = figures.run(command, cwd, env)
    if code:
        raise StepError(f"exit code {code}: {' '.join(map(str, command))}\n{output}")
    return seconds, output


def verify(comfyui: Path, python: Path, packs: dict[str, Pack], output: str) -> None:
    """Raise StepError unless all nodes are there with all that they ask for."""
    for name, pack in packs.items():
        folder = comfyui / "custom_nodes" / name
        if not (folder / "__init__.py").is_file():
            raise StepError(f"{folder} isn't there\n{output}")
        if pack.script and not (folder / MARK).exists():
            raise StepError(f"the install script of {folder} didn't run\n{output}")
    wanted = sorted({module for pack in packs.values() for module in pack.imports})
    ended = subprocess.run(
        [python, "-c", "".join(f"import {module}\n" for module in wanted)],
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        raise StepError(f"{python} lacks what nodes ask for\n{ended.stderr}\n{output}")


class Ours:
    """A machine of ours, new in `folder`."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self.bench, self.folder = bench, folder
        self.env = bench.environment(folder / "home")

    def build(self, packs: dict[str, Pack]) -> tuple[float, str]:
        """`doit build` of a machine with these nodes: its seconds and what it printed."""
        file = self.folder / "machine.yaml"
        spec = {
            "workspace": "ws",
            "comfyui": {"repo": f"{HOST}ComfyUI", "ref": BRANCH},
            "python": {"torch": self.bench.torch},
            "custom_nodes": [{"url": HOST + name} for name in packs],
            "instances": {"cpu_only": True},
        }
        file.write_text(yaml.safe_dump(spec, sort_keys=False))
        seconds, output = run([BIN / "doit", "build", f"machine={file}"], self.env, PROJECT)
        current = self.folder / "ws" / ".machine" / "state" / "current"
        verify(current / "ComfyUI", current / "environment" / "bin" / "python", packs, output)
        return seconds, output

    def remove(self) -> None:
        shutil.rmtree(private_folder.folder(self.folder / "ws"), ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class Theirs:
    """comfy-cli in an environment of its own, and one workspace."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.folder = bench.folder / "theirs"
        self.workspace = self.folder / "ws"
        self.pristine = self.folder / "pristine"
        self.install_mode = FAST_DEPS
        self.node_modes = [FAST_DEPS, UV_COMPILE]

    @property
    def _python(self) -> Path:
        return self.workspace / ".venv" / "bin" / "python"

    @property
    def _env(self) -> dict[str, str]:
        return self.bench.environment(self.folder / "home")

    def _run(self, *arguments: str) -> tuple[float, str]:
        program = self.folder / "comfy-cli" / "bin" / "comfy"
        where = ["--skip-prompt", "--workspace", str(self.workspace)]
        return run([program, *where, *arguments], self._env, self.folder)

    def prepare(self, packs: dict[str, Pack]) -> str:
        """Install comfy-cli, and fill the folder of wheels; return its version."""
        uv, venv = BIN / "uv", self.folder / "comfy-cli"
        python = venv / "bin" / "python"
        run([uv, "venv", "--quiet", "--seed", "--python", sys.executable, venv], self._env, PROJECT)
        run([uv, "pip", "install", "--quiet", "--python", python, COMFY_CLI], self._env, PROJECT)
        comfyui = self.bench.forge / "ComfyUI"
        files = [comfyui / "requirements.txt", comfyui / "manager_requirements.txt"]
        files += [self.bench.forge / name / "requirements.txt" for name in packs]
        asked = [word for file in files if file.exists() for word in ("--requirement", str(file))]
        asked += ["pip", "uv", "setuptools", "wheel"]
        wheel = ["-m", "pip", "wheel", "--quiet", "--wheel-dir", str(self.bench.wheels)]
        run([python, *wheel, *asked], self._env, PROJECT)
        named = "from importlib.metadata import version; print(version('comfy-cli'))"
        return run([python, "-c", named], self._env, PROJECT)[1].strip()

    def install(self, *options: str, mode: str | None = None) -> float:
        """Install ComfyUI, with `--restore` again: seconds.

        `--skip-torch-or-directml` leaves torch to ComfyUI's requirements, as on our side.
        """
        fixed = ["--url", f"{HOST}ComfyUI", "--cpu", "--skip-torch-or-directml"]
        chosen = OPTIONS[mode or self.install_mode]
        seconds, output = self._run("install", *fixed, *chosen, *options)
        verify(self.workspace, self._python, {}, output)
        return seconds

    def install_nodes(self, packs: dict[str, Pack], mode: str) -> float:
        """Install these nodes with one command: seconds."""
        urls = [HOST + name for name in packs]
        command = ["node", "install", "--exit-on-fail", *OPTIONS[mode], *urls]
        seconds, output = self._run(*command)
        verify(self.workspace, self._python, packs, output)
        return seconds

    def remove(self) -> None:
        shutil.rmtree(self.workspace, ignore_errors=True)

    def keep(self) -> None:
        """Remember the workspace as it is, for `back`."""
        shutil.rmtree(self.pristine, ignore_errors=True)
        shutil.copytree(self.workspace, self.pristine, symlinks=True)

    def back(self) -> None:
        self.remove()
        shutil.copytree(self.pristine, self.workspace, symlinks=True)

    def warm(self, packs: dict[str, Pack], added: dict[str, Pack]) -> None:
        """Fill uv's cache with what the steps take from it."""
        self.install()
        self.keep()
        for mode in self.node_modes:
            self.back()
            self.install_nodes(packs, mode)
            self.install_nodes(added, mode)

    def try_modes(self, packs: dict[str, Pack]) -> Iterator[str]:
        """Choose the faster modes, and say what was tried."""
        installs = dict.fromkeys((PIP, FAST_DEPS), float("inf"))
        for mode in (*installs, *installs):
            self.remove()
            installs[mode] = min(installs[mode], self.install("--skip-manager", mode=mode))
        self.install_mode = min(installs, key=lambda mode: installs[mode])
        nodes = {}
        for mode in OPTIONS:
            self.back()
            nodes[mode] = self.install_nodes(packs, mode)
        self.node_modes = [mode for mode in nodes if nodes[mode] <= CLOSE * min(nodes.values())]
        for what, tried, chosen in (
            ("comfy install --skip-manager", installs, [self.install_mode]),
            ("comfy node install", nodes, self.node_modes),
        ):
            times = ", ".join(f"{mode} {seconds:.1f} s" for mode, seconds in tried.items())
            yield f"{what}, tried: {times}; measured: {' and '.join(chosen)}"


def repository(folder: Path, files: dict[str, str], env: dict[str, str]) -> None:
    """Add files to a folder, unless they are there, and commit all as a repository's branch."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(text)
    identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
    for command in (
        ["init", "--quiet"],
        ["checkout", "--quiet", "-B", BRANCH],
        ["add", "--all", "--force"],
        [*identity, "commit", "--quiet", "--allow-empty", "-m", "benchmark"],
    ):
        run(["git", *command], env, folder)


def make_repositories(bench: Bench, comfyui: str | None, packs: dict[str, Pack]) -> None:
    """ComfyUI and the nodes, and the git settings by which both sides find them."""
    settings = f'[url "{bench.forge.as_uri()}/"]\n\tinsteadOf = {HOST}\n'
    (bench.folder / "gitconfig").write_text(settings)
    env = bench.environment(bench.folder / "home")
    target = bench.forge / "ComfyUI"
    local = Path(comfyui or SIMULATOR).resolve()
    if local.is_dir() and not any((local / name).exists() for name in (".git", "HEAD")):
        shutil.copytree(local, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        origin = local if local.is_dir() else comfyui or ""
        run(["git", "clone", "--quiet", origin, target], dict(os.environ), PROJECT)
    repository(target, FOR_MANAGER, env)
    for name, pack in packs.items():
        text = "".join(f"import {module}\n" for module in pack.imports)
        text += NODE.format(name=name.replace("-", "_"))
        files = {"__init__.py": text, "README.md": f"# {name}\n"}
        files |= {f"web/{part}.js": f"// {name}\n" * 50 for part in range(10)}
        files |= {"requirements.txt": pack.requirements} if pack.requirements else {}
        files |= {"install.py": SCRIPT} if pack.script else {}
        repository(bench.forge / name, files, env)


def named_packs(number: int) -> dict[str, Pack]:
    return {f"bench-node-{i + 1}": PACKS[i % len(PACKS)] for i in range(number)}


def our_round(bench: Bench, folder: Path, packs: dict[str, Pack], added: dict[str, Pack]) -> None:
    machine = Ours(bench, folder)
    seconds, output = machine.build(packs)
    if "validation" not in task_seconds(output):
        raise StepError(f"a cold build didn't validate\n{output}")
    bench.record(COLD, OURS, seconds)
    bench.tasks[COLD].append(task_seconds(output))
    bench.record(AGAIN, OURS, no_op(machine, packs))
    seconds, output = machine.build(packs | added)
    bench.record(ADD, OURS, seconds)
    bench.tasks[ADD].append(task_seconds(output))
    machine.remove()


def no_op(machine: Ours, packs: dict[str, Pack]) -> float:
    """Seconds of a run that has nothing to do. Raises StepError if it did something."""
    seconds, output = machine.build(packs)
    if task_seconds(output):
        raise StepError(f"a second run did something\n{output}")
    return seconds


def their_round(
    bench: Bench, theirs: Theirs, packs: dict[str, Pack], added: dict[str, Pack]
) -> None:
    theirs.remove()
    bench.record(INSTALL + BARE, THEIRS, theirs.install("--skip-manager"))
    theirs.remove()
    bench.record(INSTALL, THEIRS, theirs.install())
    if len(theirs.node_modes) > 1:
        theirs.keep()
    for number, mode in enumerate(theirs.node_modes):
        if number:
            theirs.back()
        bench.record(f"{NODES} {mode}", THEIRS, theirs.install_nodes(packs, mode))
        if not number:
            bench.record(AGAIN, THEIRS, theirs.install("--restore"))
            bench.record(AGAIN + BARE, THEIRS, theirs.install("--restore", "--skip-manager"))
        bench.record(f"{ADD} {mode}", THEIRS, theirs.install_nodes(added, mode))


def settle(bench: Bench, modes: Sequence[str]) -> None:
    """Sum up comfy-cli's cold builds, of its fastest way to install nodes."""
    measured = bench.measured
    for step in (NODES, ADD):
        fastest = min(modes, key=lambda mode: statistics.median(measured[f"{step} {mode}", THEIRS]))
        measured[step, THEIRS] = measured[f"{step} {fastest}", THEIRS]
    for suffix in ("", BARE):
        parts = zip(measured[INSTALL + suffix, THEIRS], measured[NODES, THEIRS], strict=True)
        measured[COLD + suffix, THEIRS] = [sum(part) for part in parts]


def task_seconds(output: str) -> dict[str, float]:
    """The tasks that a run of ours says it did, with their seconds."""
    return {task: float(s) for task, s in re.findall(r"^✓ (\S+) +([\d.]+) s$", output, re.M)}


def measure(bench: Bench, arguments: argparse.Namespace) -> list[str]:
    """Measure everything; return the ways in which comfy-cli installed nodes."""
    packs = named_packs(arguments.nodes)
    added = {"bench-node-added": ADDED}
    wide = named_packs(arguments.many)
    tell("repositories, comfy-cli")
    make_repositories(bench, arguments.comfyui, wide | packs | added)
    if arguments.alone:
        our_round(bench, bench.folder / OURS, packs, added)
        return []
    theirs = Theirs(bench)
    version = theirs.prepare(packs | added)
    print(f"comfy-cli {version}, Python {sys.version.split()[0]}, {os.cpu_count()} cores, ", end="")
    print(f"load {os.getloadavg()[0]:.1f}, {arguments.nodes} nodes, {arguments.runs} runs")
    tell("filling the caches")
    theirs.warm(packs, added)
    our_round(Bench(bench.folder, bench.torch), bench.folder / OURS, packs, added)
    many = Ours(bench, bench.folder / MANY)
    many.build(wide)
    no_op(many, wide)
    bench.offline = True
    tell("trying the modes of comfy-cli")
    print("\n".join(theirs.try_modes(packs)))
    sides: list[Callable[[], None]] = [
        lambda: our_round(bench, bench.folder / OURS, packs, added),
        lambda: their_round(bench, theirs, packs, added),
    ]
    for number in range(arguments.runs):
        tell(f"run {number + 1} of {arguments.runs}")
        for side in sides if number % 2 == 0 else reversed(sides):
            side()
        bench.record(MANY, OURS, no_op(many, wide))
    settle(bench, theirs.node_modes)
    return theirs.node_modes


def tell(what: str) -> None:
    print(f"… {what}", file=sys.stderr, flush=True)


def shown(seconds: Sequence[float]) -> str:
    """Median, least and most, or a dash."""
    if not seconds:
        return "–"
    median = statistics.median(seconds)
    return f"{median:.2f} s ({min(seconds):.2f}–{max(seconds):.2f})"


def report(bench: Bench, many: int, modes: Sequence[str]) -> Iterator[str]:
    """The table against what is promised, then where the time went."""
    line = "{:<32}  {:<22}  {:<22}  {:>6}  {:<9}  {}".format
    yield line("median (least–most)", OURS, THEIRS, "ratio", "promised", "")
    for step, suffix, most in (
        (COLD, "", 0.4),
        (COLD, BARE, 0.4),
        (AGAIN, "", 0.1),
        (AGAIN, BARE, 0.1),
        (ADD, "", 0.2),
    ):
        ours, theirs = bench.measured[step, OURS], bench.measured[step + suffix, THEIRS]
        if not theirs:
            yield line(suffix or step, shown(ours), shown(theirs), "–", f"≤ {most}", "")
            continue
        ratio = statistics.median(ours) / statistics.median(theirs)
        verdict = "reached" if ratio <= most else "NOT REACHED"
        yield line(suffix or step, shown(ours), shown(theirs), f"{ratio:.2f}", f"≤ {most}", verdict)
    seconds = bench.measured[MANY, OURS]
    if seconds:
        verdict = "reached" if statistics.median(seconds) < 0.3 else "NOT REACHED"
        yield line(f"{AGAIN}, {many} nodes", shown(seconds), "–", "–", "< 0.3 s", verdict)
    for step, tasks in bench.tasks.items():
        yield ""
        yield f"ours, {step}, by task (tasks run beside each other)"
        spent: dict[str, list[float]] = defaultdict(list)
        for name, lasted in (item for each in tasks for item in each.items()):
            spent[name].append(lasted)
        for name in sorted(spent, key=lambda name: -statistics.median(spent[name])):
            yield line(name, shown(spent[name]), "", "", "", "").rstrip()
    if not modes:
        return
    yield ""
    yield "theirs, cold build, by command"
    for step in (INSTALL, BARE, *(f"{NODES} {mode}" for mode in modes)):
        seconds = bench.measured[INSTALL + BARE if step == BARE else step, THEIRS]
        yield line(step, "", shown(seconds), "", "", "").rstrip()


@contextmanager
def temporary_folder(keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="comfy-machine-benchmark-")).resolve()
    try:
        yield folder
    finally:
        for name in (OURS, MANY):
            shutil.rmtree(private_folder.folder(folder / name / "ws"), ignore_errors=True)
        if keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def parse_arguments() -> argparse.Namespace:
    described = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=described
    )
    option = parser.add_argument
    option("--runs", type=int, default=5, help="rounds; each does all steps on both sides")
    option("--nodes", type=int, default=10, help="custom nodes on both sides")
    option(
        "--many", type=int, default=60, help="custom nodes of the machine whose second run counts"
    )
    option("--comfyui", metavar="PATH-OR-URL", help="ComfyUI in place of the simulator")
    option(
        "--torch",
        choices=("none", "pypi"),
        default="none",
        help="our python.torch; a real ComfyUI needs pypi, which is what comfy-cli takes then",
    )
    option("--keep", action="store_true", help="keep the temporary folder")
    option("--alone", action="store_true", help="without comfy-cli")
    option("--caches", type=Path, help="folder with uv, pip and npm, in place of new ones")
    arguments = parser.parse_args()
    if min(arguments.runs, arguments.nodes, arguments.many) < 1:
        parser.error("--runs, --nodes and --many are at least 1")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    figures.exit_on_signals()
    with temporary_folder(arguments.keep) as folder:
        bench = Bench(folder, arguments.torch, caches=arguments.caches)
        try:
            modes = measure(bench, arguments)
        except StepError as error:
            print(error, file=sys.stderr)
            return 1
        print()
        print("\n".join(report(bench, arguments.many, modes)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
