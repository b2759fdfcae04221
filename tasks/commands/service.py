"""doit service: install a systemd unit that starts the machine after a reboot."""

from __future__ import annotations

import getpass
import sys

from ..engine.run import Run
from ..host.system import program_files, systemd
from ..host.system.failure import Failure
from ..host.system.program_files import PROGRAM
from .shared.command import Call, MachineCommand, locked, option


class Service(MachineCommand):
    doc_purpose = "start the machine at boot, and stop it at shutdown, by systemd"
    doc_description = (
        f"Installs a unit that runs `{PROGRAM}` at boot and `{PROGRAM} down` at stop: for root a "
        "system unit, else one of the user."
    )
    cmd_options = (
        option("remove", "remove the unit; running instances keep running"),
        option("print", "print the unit and change nothing"),
    )

    def perform(self, call: Call) -> int:
        run, at = call.run, systemd.manager()
        name = systemd.unit_name(run.machine.file)
        if call.options["remove"]:
            return _remove(run, at, name)
        text = unit(run, user_unit=at.user)
        if call.options["print"]:
            print(f"# {at.folder / name}\n{text}", end="")
            return 0
        return _install(run, at, name, text)


def unit(run: Run, *, user_unit: bool) -> str:
    """The unit file of a machine, with the doit of this installation."""
    return systemd.render(
        run.machine.file,
        run.machine.workspace,
        program_files.TOP,
        [sys.executable, "-I", program_files.SERVICES / "boot.py"],
        program_files.program_file(),
        user_unit=user_unit,
    )


def _install(run: Run, at: systemd.Manager, name: str, text: str) -> int:
    with locked(run, "service"):
        # The unit starts at once, and its doit needs the lock.
        pass
    if not systemd.install(at, name, text):
        print(f"{name} is already installed and enabled")
        return 0
    print(f"{at.folder / name} is installed, enabled and started")
    print(f"its log: journalctl {'--user ' if at.user else ''}-u {name}")
    if at.user:
        user = getpass.getuser()
        try:
            systemd.linger(user)
        except Failure as failure:
            print(f"! it starts when {user} logs in, not at boot; to change that, run as root:")
            print(f"  loginctl enable-linger {user}  ({failure})")
    return 0


def _remove(run: Run, at: systemd.Manager, name: str) -> int:
    with locked(run, "service"):
        gone = systemd.remove(at, name)
    print(f"{at.folder / name} {'is removed' if gone else 'is not installed'}")
    return 0
