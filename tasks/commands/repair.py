"""doit repair: remove what is damaged and doesn't run; doit makes it again."""

from __future__ import annotations

from pathlib import Path

from ..engine.run import Run
from ..environment import stage as environment
from ..environment import verification
from ..generation import inspection, last_good
from ..host.generations import kept_generations
from ..host.pm2 import pm2
from ..host.python import altered_files, bytecode
from ..host.storage import access, garbage
from ..host.system.program_files import PROGRAM
from ..host.system.progress import Progress
from .shared.command import Call, LockingCommand


class Repair(LockingCommand):
    doc_purpose = "remove what is damaged and doesn't run"
    doc_description = (
        f"Finds what {PROGRAM} verify finds but for models; the next {PROGRAM} makes all that "
        "again. Gives back the rights to files below .machine. What lies "
        "in the place of a file of ours is moved to .machine/left."
    )

    def work(self, call: Call) -> int:
        run, number = call.run, 0
        with run.working("repair"):
            for line in access.restore(run.layout):
                print(line)
                number += 1
            # Without its environment a generation is damaged too.
            number += _remove_environments(run) + _remove_damaged(run) + _remove_bytecode(run)
            if number and last_good.forgive(run):
                print(f"what didn't become healthy may have been damaged: {PROGRAM} tries it again")
        print(f"{PROGRAM} makes again what is missing" if number else "nothing is damaged")
        return 0


def _remove_damaged(run: Run) -> int:
    """Remove sources and generations; return how many things are damaged."""
    layout = run.layout
    run.doing("reads sources and generations")
    running = {layout.generations / name for name in kept_generations.in_use(layout)}
    found = list(inspection.find(layout))
    for each in found:
        print(f"✗ {each.path}: {each.damage}")
        if each.path in running:
            print(f"{each.path.name} is in use: {PROGRAM} makes a new one beside it")
        elif each.path == pm2.folder(layout):
            (each.path / pm2.RECEIPT).unlink(missing_ok=True)
        else:
            _remove(run, each.path)
    return len(found)


def _remove_environments(run: Run) -> int:
    """Remove damaged environments; return how many there are."""
    progress = Progress("repair")
    with run.board.following(progress):
        checked = verification.check(verification.whole_environments(run), progress)
    damaged = [each for each in checked if each.damaged]
    for each in damaged:
        altered_files.note_spoilt(each.folder, each.spoilt)
        files = ", ".join(file.path for file in each.spoilt[:3])
        print(f"✗ {each.folder}: {each.lost or files}")
        if each.folder.name in environment.in_use(run):
            print(f"instances run from {each.folder.name}: {PROGRAM} makes a new one beside it")
        else:
            _remove(run, each.folder)
    return len(damaged)


def _remove_bytecode(run: Run) -> int:
    """Remove damaged bytecode, also where instances run: they have loaded it, or compile it."""
    layout = run.layout
    run.doing("reads bytecode")
    damaged = bytecode.damaged([layout.environments, layout.generations])
    for path in damaged:
        path.unlink(missing_ok=True)
        print(f"{path} is removed")
    return len(damaged)


def _remove(run: Run, folder: Path) -> None:
    garbage.discard(run.layout, folder)
    print(f"{folder} is removed")
