"""What it costs that environments are isolated: seconds, and bytes on disk.

An environment is grown as the build does it (native libraries shared, all else copied), as a whole
tree of hard links, and as a whole copy; then it is looked through for what was written into, as
after each proof and script, and read whole, as `doit verify` does.

    python -m tests.benchmarks.environments --environment DIR [--rounds 3]

DIR is an environment; copies are made beside it, on the same file system, and removed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from comfy_machine.environment import verification
from comfy_machine.host.python import environments, records, uv
from comfy_machine.host.storage import trees
from comfy_machine.host.system import files
from comfy_machine.host.system.progress import Progress
from comfy_machine.host.system.units import size
from tests.benchmarks.figures import exit_on_signals


def own_bytes(folder: Path) -> tuple[int, int]:
    """Bytes of the files below that have no second name, and how many files there are in all."""
    every = [path.lstat() for path in folder.rglob("*") if not path.is_dir()]
    return sum(each.st_size for each in every if each.st_nlink == 1), len(every)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that it takes, and seconds of a core, its children's too."""
    os.sync()
    begin, before = time.perf_counter(), sum(os.times()[:4])
    work()
    return time.perf_counter() - begin, sum(os.times()[:4]) - before


def shown(every: Sequence[tuple[float, float]]) -> str:
    taken, core = (statistics.median(each) for each in zip(*every, strict=True))
    return f"{taken:.2f} s ({core:.2f} s of a core)"


def grown(environment: Path, folder: Path) -> None:
    trees.copy(environment, folder, environments.is_native)


def hard_links(environment: Path, folder: Path) -> None:
    subprocess.run(["cp", "-al", environment, folder], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    exit_on_signals()
    environment = chosen.environment.resolve()
    scratch = Path(tempfile.mkdtemp(prefix=".bench-", dir=environment.parent))
    try:
        for name, way in (
            ("grown: native libraries shared", grown),
            ("all hard links, as before", hard_links),
            ("all copied", files.copy_tree),
        ):
            seconds = []
            for number in range(chosen.rounds):
                folder = scratch / str(number)
                seconds.append(timed(partial(way, environment, folder)))
            own, number = own_bytes(folder)
            shutil.rmtree(scratch)
            scratch.mkdir()
            print(f"{name}: {shown(seconds)}, {number} files, {size(own)} more")
        moment = trees.now(environment)
        looked, _ = timed(lambda: environments.written_since(environment, moment))
        claimed, _ = timed(lambda: records.claims(uv.site_packages(environment)))
        print(
            f"look for what was written into: {looked:.2f} s; whose all files are: {claimed:.2f} s"
        )
        found: list[verification.CheckedEnvironment] = []
        whole = timed(lambda: found.extend(verification.check([environment], Progress("verify"))))
        print(f"read whole: {shown([whole])}, {found[0].files} files")
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
