"""The GPUs that the instances need: present, working, and not filled by other programs.

With `instances.pin: uuid` it is recorded which GPU each instance has, for machines whose order of
GPUs changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from .engine.run import Run
from .engine.step import Task, step
from .host.pm2 import apps
from .host.system import files, gpu
from .host.system.failure import Failure
from .host.system.gpu import Gpu
from .host.system.units import gib
from .spec import Instance
from .spec.layout import Layout

FULL = 0.9
"""Share of a GPU's memory from which on others have filled it."""
SHARED = 0.05
"""Share from which on it is said that others use it."""
NONE_SHOWN = (
    "the NVIDIA driver shows no GPU here: a container needs --gpus all; without a GPU set "
    "instances.cpu_only: true"
)


def tasks(run: Run) -> Iterator[Task]:
    instances = run.instances
    yield step(
        run,
        "gpus",
        "The GPUs that the instances need",
        check=partial(_unready, run, instances),
        action=partial(_record, run, instances),
        foresee=partial(_foresee, run, instances),
        after=["validation"],
    )


def device_of(run: Run, instance: Instance) -> str:
    """What CUDA_VISIBLE_DEVICES is for an instance; empty hides every GPU.

    Raises Failure when its GPU is to be recorded first.
    """
    if instance.cpu_only:
        return ""
    if instance.device:
        return instance.device
    if run.machine.instances.pin == "index":
        return str(instance.gpu)
    if uuid := _pins(run.layout).get(instance.name):
        return uuid
    raise Failure(f"the GPU of {instance.name} isn't recorded yet: run doit gpus")


def cards(run: Run, instances: Sequence[Instance]) -> dict[int, Gpu]:
    """The GPU of each instance, by its number, as far as the driver tells."""
    if run.machine.instances.cpu_only or not instances:
        return {}
    try:
        here = gpu.inventory()
    except Failure:
        return {}
    pins = _pins(run.layout) if run.machine.instances.pin == "uuid" else {}
    found = {
        each.gpu: gpu.of(here, each.gpu, pins.get(each.name))
        for each in instances
        if not each.device
    }
    return {number: card for number, card in found.items() if card}


def _unready(run: Run, instances: Sequence[Instance]) -> str | None:
    """Asks NVML only when something is to be started: a run with nothing to do is cheap."""
    if run.machine.instances.cpu_only or not run.machine.enabled:
        return None
    if new := _unrecorded(run, instances):
        return f"the GPU of {', '.join(each.name for each in new)} isn't recorded yet"
    if not instances or _to_start(run, instances):
        _look(run, instances)
    return None


def _record(run: Run, instances: Sequence[Instance], log: Path) -> None:
    _foresee(run, instances, log)


def _foresee(run: Run, instances: Sequence[Instance], log: Path) -> list[str]:
    """Refuse what stands in the way, record the GPUs of new instances (of a plan, for the plan)."""
    if run.machine.instances.cpu_only or not run.machine.enabled:
        return []
    pins = _look(run, instances)
    known = _pins(run.layout) if pins else {}
    if pins != known:
        _write_pins(run.layout, pins)
    return [f"{name} on {uuid}" for name, uuid in pins.items() if known.get(name) != uuid]


def _to_start(run: Run, instances: Sequence[Instance]) -> list[Instance]:
    running = {app.name for app in apps.running(run.machine.workspace, None)}
    return [instance for instance in instances if instance.name not in running]


def _look(run: Run, instances: Sequence[Instance]) -> dict[str, str]:
    """The GPU of each instance by UUID; empty with `pin: index`.

    Raises Failure when one can't be started on its GPU; says so where others use a part of it.
    """
    here = gpu.inventory()
    if not here:
        raise Failure(NONE_SHOWN)
    if not instances:
        raise Failure(
            f"gpus: auto counts /dev/nvidia<N>, and there is none; the driver shows {len(here)}: "
            f"set instances.gpus: {len(here)}"
        )
    pins = _add_pins(run, instances, here) if run.machine.instances.pin == "uuid" else {}
    asked = [*_to_start(run, instances), *_unrecorded(run, instances)]
    # One that names a part of a GPU is no matter of the whole ones.
    whole = [each for each in instances if each in asked and not each.device]
    pairs = [(each, gpu.of(here, each.gpu, pins.get(each.name))) for each in whole]
    wrong = _missing(run, [each for each, card in pairs if not card], pins, here)
    ours = apps.family(run.machine.workspace)
    wrong += [why for each, card in pairs if card and (why := _obstacle(each, card, ours))]
    if wrong:
        raise Failure("; ".join(wrong))
    for instance, card in pairs:
        if card and _share(card, ours) > SHARED:
            run.warn(f"{card}: {_taken(card, ours)}; {instance.name} has the rest")
    return pins


def _missing(
    run: Run, instances: Sequence[Instance], pins: dict[str, str], here: Sequence[Gpu]
) -> list[str]:
    """What is wrong with instances whose GPU isn't there."""
    silent = [f"{card}: {card.trouble}" for card in here if card.trouble and not card.uuid]
    aside = f" ({', '.join(silent)})" if silent else ""
    found = [
        f"{pins[each.name]}, the GPU of {each.name}, isn't here any more{aside}: put it back, or "
        f"delete its line in {run.layout.gpus} to give {each.name} another"
        for each in instances
        if each.name in pins
    ]
    if beyond := [str(each.gpu) for each in instances if each.name not in pins]:
        there = "there is 1" if len(here) == 1 else f"there are {len(here)}"
        advice = "correct instances.gpus"
        if run.machine.instances.gpus == "auto":
            advice = f"dmesg may say where they are; or set instances.gpus: {len(here)}"
        found.append(f"no GPU {', '.join(beyond)} here, {there}: {advice}")
    return found


def _obstacle(instance: Instance, card: Gpu, ours: set[int]) -> str | None:
    """Why the instance can't be started on its GPU, and what to do."""
    elsewhere = "or leave it out of instances.gpus"
    smi = f"nvidia-smi -i {card.index}"
    if card.trouble:
        return (
            f"{card} can't be used, NVML says: {card.trouble}: reset it ({smi} --gpu-reset) or "
            f"reboot, {elsewhere}"
        )
    if card.mig:
        return (
            f"{card} is split by MIG: {smi} -mig 0, or name one of its parts (nvidia-smi -L): "
            f"instances.overrides: {{{instance.gpu}: {{env: {{CUDA_VISIBLE_DEVICES: MIG-…}}}}}}"
        )
    if card.mode == "Prohibited":
        return f"{card} takes no programs (compute mode Prohibited): {smi} -c DEFAULT"
    computing = [each for each in card.processes if each.computes and each.pid not in ours]
    if card.mode == "Exclusive_Process" and computing:
        return (
            f"{card} is another's alone (compute mode Exclusive_Process), {_who(computing)}: end "
            f"that, or {smi} -c DEFAULT"
        )
    if _share(card, ours) >= FULL:
        return f"{card} is full, {_taken(card, ours)}: end that, {elsewhere}"
    return None


def _taken(card: Gpu, ours: set[int]) -> str:
    strangers = [each for each in card.processes if each.pid not in ours]
    return f"{gib(_others(card, ours))} of {gib(card.total)} are used by {_who(strangers)}"


def _who(strangers: Sequence[gpu.Process]) -> str:
    if not strangers:
        return "processes that can't be seen from here (another container?)"
    largest_first = sorted(strangers, key=lambda each: each.memory or 0, reverse=True)
    return ", ".join(map(str, largest_first))


def _share(card: Gpu, ours: set[int]) -> float:
    return _others(card, ours) / card.total if card.total else 0.0


def _others(card: Gpu, ours: set[int]) -> int:
    """Bytes that others use. All that isn't known to be ours: not every process is shown."""
    own = [each.memory for each in card.processes if each.pid in ours]
    if None in own:
        return sum(each.memory or 0 for each in card.processes if each.pid not in ours)
    return max(card.used - sum(size or 0 for size in own), 0)


def _pins(layout: Layout) -> dict[str, str]:
    """Instance → UUID, as recorded.

    Raises Failure when the file is damaged: made anew, it might give one the GPU of another.
    """
    file = layout.seen(layout.gpus)
    found = files.read_receipt(file, gpus=dict)
    if not found and file.exists():
        raise Failure(f"{file} is damaged: mend it, or delete it to pin every instance anew")
    return {str(name): str(uuid) for name, uuid in found.get("gpus", {}).items()}


def _unrecorded(run: Run, instances: Sequence[Instance]) -> list[Instance]:
    """The instances whose GPU is to be recorded."""
    if run.machine.instances.pin != "uuid":
        return []
    known = _pins(run.layout)
    return [each for each in instances if each.name not in known and not each.device]


def _add_pins(run: Run, instances: Sequence[Instance], here: Sequence[Gpu]) -> dict[str, str]:
    """Instance → UUID, with a GPU for each that has none recorded; writes nothing.

    It gets the GPU of its index if that is nobody's, else the first that is nobody's; those of
    instances that left machine.yaml are taken last. There is none for one whose index is beyond
    `here` or that of a GPU in trouble. Raises Failure when all are somebody's.
    """
    known = _pins(run.layout)
    names = {instance.name for instance in instances}
    left = {uuid for name, uuid in known.items() if name not in names}
    for instance in _unrecorded(run, instances):
        if instance.gpu >= len(here) or here[instance.gpu].trouble:
            continue
        taken = {uuid for name, uuid in known.items() if name in names}
        free = [card for card in here if not card.trouble and card.uuid not in taken]
        if not free:
            raise Failure(
                f"no GPU is left for {instance.name}: {run.layout.gpus} gives others all that "
                "can be used: correct instances.gpus, or delete a line there"
            )
        chosen = min(free, key=lambda card: (card.uuid in left, card.index != instance.gpu))
        known = {name: uuid for name, uuid in known.items() if uuid != chosen.uuid}
        known[instance.name] = chosen.uuid
    return known


def _write_pins(layout: Layout, pins: dict[str, str]) -> None:
    files.write_receipt(layout.kept(layout.gpus), {"gpus": pins})
