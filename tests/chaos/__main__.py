"""make chaos: what befalls a machine, tried on one of the simulator; a table says what stays so.

The exit code is 1 when a case failed. Root does without its right to read every file.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests import starter
from tests.chaos import damaged_files
from tests.chaos.machines import Stuck, Victim

PR_CAPBSET_DROP = 24
OVERRIDING = (1, 2)
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, with which mode 000 means nothing."""
RENEW_AFTER = 40
"""Cases on one machine: damage that nothing looks at adds up."""


def main() -> int:
    options = _options()
    if os.geteuid() == 0 and not options.dropped:
        _drop_capabilities()
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, starter.forking():
        done, failed = _damage(Path(folder), seed, options)
    print(f"\n{'kind':46} {'cases':>6} {'failed':>6}")
    for kind in sorted(done):
        print(f"{kind:46} {done[kind]:6} {failed[kind]:6}")
    print(f"{'all':46} {done.total():6} {failed.total():6}")
    return int(failed.total() > 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="the order of the cases; default: chance")
    parser.add_argument("--minutes", type=float, default=45.0, help="the most that it takes")
    parser.add_argument("--cases", type=int, help="the most cases; default: all")
    parser.add_argument("--kind", help="only kinds with this text in their names")
    parser.add_argument("--damage", help="only this damage")
    parser.add_argument("--dropped", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _drop_capabilities() -> None:
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    for capability in OVERRIDING:
        if prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "root's capabilities can't be dropped")
    os.execv(sys.executable, [sys.executable, "-m", "tests.chaos", "--dropped", *sys.argv[1:]])


def _damage(
    folder: Path, seed: int, options: argparse.Namespace
) -> tuple[Counter[str], Counter[str]]:
    chance, deadline = random.Random(seed), time.monotonic() + options.minutes * 60
    done: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    victim: Victim | None = None
    for case in damaged_files.cases(chance):
        if options.kind and options.kind not in case.kind:
            continue
        if options.damage and options.damage != case.damage:
            continue
        if time.monotonic() > deadline or done.total() == options.cases:
            break
        victim = victim or Victim(folder / "machine", folder / "cache")
        try:
            name = damaged_files.do(victim, case, chance)
        except Stuck as stuck:
            name = "?"
            failed[case.kind] += 1
            print(f"\n✗ {case.kind}, {case}: {stuck}", flush=True)
        if name is None:
            continue
        done[case.kind] += 1
        print(f"{'✗' if name == '?' else '✓'} {case.kind}, {case} ({name})", flush=True)
        if name == "?" or done.total() % RENEW_AFTER == 0:
            victim.close()
            victim = None
    if victim:
        victim.close()
    return done, failed


if __name__ == "__main__":
    sys.exit(main())
