"""make chaos: what befalls a machine, tried on one of the simulator; a table says what stays so.

The exit code is 1 when a case failed. Root does without its right to read every file.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Protocol

from tests import starter
from tests.chaos import answers, damaged_files, disk, kills, network, rolls
from tests.chaos.machines import Stuck, Victims, machines

PR_CAPBSET_DROP = 24
OVERRIDING = (1, 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, with which mode 000 means nothing."""


class Case(Protocol):
    @property
    def kind(self) -> str: ...

    def do(self, victims: Victims, chance: random.Random) -> str | None:
        """What was done, None: nothing could be. Raises Stuck."""


LANES: dict[str, Callable[[random.Random], Iterator[Case]]] = {
    "damage": damaged_files.cases,
    "kills": kills.cases,
    "answers": answers.cases,
    "network": network.cases,
    "disk": disk.cases,
    "rolls": rolls.cases,
}


def main() -> int:
    options = _options()
    if os.geteuid() == 0 and not options.dropped:
        _drop_capabilities()
    # Also in the background, where a shell lets SIGINT be ignored: machines are closed.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    done: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        starter.forking(),
        machines(Path(folder)) as victims,
    ):
        _run(victims, seed, options, done, failed)
    print(f"\n{'kind':50} {'cases':>6} {'failed':>6}")
    for kind in sorted(done):
        print(f"{kind:50} {done[kind]:6} {failed[kind]:6}")
    print(f"{'all':50} {sum(done.values()):6} {sum(failed.values()):6}")
    return int(any(failed.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="the order of the cases; default: chance")
    parser.add_argument("--minutes", type=float, default=45.0, help="the most that it takes")
    parser.add_argument("--cases", type=int, default=1 << 30, help="the most cases")
    parser.add_argument("--lane", choices=LANES, help="only these cases; default: all in turn")
    parser.add_argument(
        "--part", type=_part, default=(1, 1), metavar="K/N", help="every Nth case from the Kth on"
    )
    parser.add_argument("--skip", type=int, default=0, help="so many of these first")
    parser.add_argument("--kind", default="", help="only kinds with this text in their names")
    parser.add_argument("--dropped", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _part(text: str) -> tuple[int, int]:
    number, of = map(int, text.split("/"))
    if not 1 <= number <= of:
        raise ValueError
    return number, of


def _drop_capabilities() -> None:
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for capability in OVERRIDING:
        if prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "root's capabilities can't be dropped")
    os.execv(sys.executable, [sys.executable, "-m", "tests.chaos", "--dropped", *sys.argv[1:]])


def _run(
    victims: Victims,
    seed: int,
    options: argparse.Namespace,
    done: Counter[str],
    failed: Counter[str],
) -> None:
    chance, deadline = random.Random(seed), time.monotonic() + options.minutes * 60
    number, of = options.part
    first = number - 1 + options.skip * of
    for case in islice(_in_turn(random.Random(seed), options.lane), first, None, of):
        if time.monotonic() > deadline or sum(done.values()) >= options.cases:
            return
        if options.kind not in case.kind:
            continue
        begin = time.monotonic()
        try:
            what = case.do(victims, chance)
        except Stuck as stuck:
            done[case.kind] += 1
            failed[case.kind] += 1
            print(f"\n✗ {case}: {stuck}", flush=True)
            victims.drop()
            continue
        if what:
            done[case.kind] += 1
            print(f"✓ {case} ({what}) {time.monotonic() - begin:.1f} s", flush=True)


def _in_turn(chance: random.Random, only: str | None) -> Iterator[Case]:
    lanes: list[Iterator[Case]] = [
        cases(chance) for name, cases in LANES.items() if only in (None, name)
    ]
    while True:
        for lane in lanes:
            yield next(lane)


if __name__ == "__main__":
    sys.exit(main())
