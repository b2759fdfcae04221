"""Machines in a network that a test can cut: network namespaces of the kernel on one switch.

They have no names and nothing outside them: each is there as long as something holds it open, this
process or one that was started in it, so that nothing is left however a test ends, and tests beside
each other don't meet.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

CLONE_NEWNET = 0x40000000
HERE = "/proc/thread-self/ns/net"
MACHINES = 8
"""How many a network may have."""

_libc = ctypes.CDLL(None, use_errno=True)


class Impossible(Exception):  # noqa: N818  reads as what is the case
    """This process may make no namespaces; the text says why."""


class Namespace:
    """One, with its loopback interface up."""

    def __init__(self) -> None:
        """Raises Impossible."""
        with _returning():
            if _libc.unshare(CLONE_NEWNET):
                raise Impossible(f"no network namespace: {os.strerror(ctypes.get_errno())}")
            self._descriptor = os.open(HERE, os.O_RDONLY)
            _ip("link set lo up")

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread is there, and all that it starts; it comes back after."""
        with _returning():
            _enter(self._descriptor)
            yield

    @property
    def path(self) -> str:
        """A name of it for this process and its children."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def close(self) -> None:
        with suppress(OSError):
            os.close(self._descriptor)


@dataclass(frozen=True)
class Place:
    """A namespace with an address, on the switch."""

    namespace: Namespace
    number: int
    switch: Namespace

    @property
    def address(self) -> str:
        return _address(self.number)

    def inside(self) -> AbstractContextManager[None]:
        return self.namespace.inside()

    def cut(self) -> None:
        """All that is sent here or from here is lost without a word, as with a broken switch:
        nobody is told, and no connection ends."""
        with self.switch.inside():
            _ip(f"link set port{self.number} nomaster")

    def join(self) -> None:
        """Undo a cut."""
        with self.switch.inside():
            _ip(f"link set port{self.number} master switch")


class Network:
    """A switch, and places on it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._switch = self._namespace()
        self._places = 0
        with self._switch.inside():
            _ip("link add switch type bridge", "link set switch up")
            # A kernel may have switches and no cables.
            _ip("link add try type veth peer name other", "link set try master switch",
                "link delete try")  # fmt: skip

    def place(self) -> Place:
        """One more."""
        self._places += 1
        number = self._places
        assert number <= MACHINES
        found = Place(self._namespace(), number, self._switch)
        port = f"port{number}"
        with self._switch.inside():
            _ip(
                f"link add {port} type veth peer name net netns {found.namespace.path}",
                f"link set {port} master switch up",
            )
        # Who asks for another's hardware address is told that nobody is there: that is a word.
        others = [each for each in range(1, MACHINES + 1) if each != number]
        with found.inside():
            _ip(
                f"link set net address {_hardware(number)} up",
                f"addr add {found.address}/24 dev net",
                *(f"neigh add {_address(each)} lladdr {_hardware(each)} dev net nud permanent"
                  for each in others),
            )  # fmt: skip
        return found

    def _namespace(self) -> Namespace:
        found = Namespace()
        self._stack.callback(found.close)
        return found


@contextmanager
def network() -> Iterator[Network]:
    """Raises Impossible before anything is done in it."""
    if shutil.which("ip") is None:
        raise Impossible("no program ip, which Debian has in iproute2")
    if os.geteuid():
        raise Impossible("network namespaces are for root")
    with ExitStack() as stack:
        try:
            found = Network(stack)
        except subprocess.CalledProcessError:
            raise Impossible("the kernel lets nobody make a network here") from None
        yield found


def _address(number: int) -> str:
    return f"10.0.0.{number}"


def _hardware(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


def _ip(*commands: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no way into a network namespace")


@contextmanager
def _returning() -> Iterator[None]:
    before = os.open(HERE, os.O_RDONLY)
    try:
        yield
    finally:
        # Who may enter none hasn't left either.
        if not os.path.samestat(os.fstat(before), Path(HERE).stat()):
            _enter(before)
        os.close(before)
