"""Which GPU each instance has by UUID, for machines whose order changes (`instances.pin: uuid`)."""

from __future__ import annotations

from collections.abc import Sequence

from .host.system import files
from .host.system.failure import Failure
from .host.system.gpu import Gpu
from .spec import Instance, Machine
from .spec.layout import Layout


def read(layout: Layout) -> dict[str, str]:
    """Instance → UUID, as recorded.

    Raises Failure when the file is damaged: made anew, it might give one the GPU of another.
    """
    file = layout.seen(layout.gpus)
    found = files.read_receipt(file, gpus=dict)
    if not found and file.exists():
        raise Failure(f"{file} is damaged: mend it, or delete it to pin every instance anew")
    return {str(name): str(uuid) for name, uuid in found.get("gpus", {}).items()}


def unrecorded(machine: Machine, instances: Sequence[Instance]) -> list[Instance]:
    """The instances whose GPU is to be recorded."""
    if machine.instances.pin != "uuid":
        return []
    known = read(machine.layout)
    return [each for each in instances if each.name not in known and not each.device]


def add(machine: Machine, instances: Sequence[Instance], here: Sequence[Gpu]) -> dict[str, str]:
    """Instance → UUID, with a GPU for each that has none recorded; writes nothing.

    It gets the GPU of its index if that is nobody's, else the first that is nobody's; those of
    instances that left machine.yaml are taken last. There is none for one whose index is beyond
    `here` or that of a GPU in trouble. Raises Failure when all are somebody's.
    """
    known = read(machine.layout)
    names = {instance.name for instance in instances}
    left = {uuid for name, uuid in known.items() if name not in names}
    for instance in unrecorded(machine, instances):
        if instance.gpu >= len(here) or here[instance.gpu].trouble:
            continue
        taken = {uuid for name, uuid in known.items() if name in names}
        free = [card for card in here if not card.trouble and card.uuid not in taken]
        if not free:
            raise Failure(
                f"no GPU is left for {instance.name}: {machine.layout.gpus} gives others all that "
                "can be used: correct instances.gpus, or delete a line there"
            )
        chosen = min(free, key=lambda card: (card.uuid in left, card.index != instance.gpu))
        known = {name: uuid for name, uuid in known.items() if uuid != chosen.uuid}
        known[instance.name] = chosen.uuid
    return known


def write(layout: Layout, pins: dict[str, str]) -> None:
    files.write_receipt(layout.kept(layout.gpus), {"gpus": pins})
