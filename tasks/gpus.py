"""The GPUs that the instances need: present, working, and not filled by other programs.

With `instances.pin: uuid` this stage records the GPU of each instance, for machines whose order
of GPUs changes.
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

FULL_SHARE = 0.9
"""Share of a GPU's memory used by other programs from which it counts as full."""
WARN_SHARE = 0.05
"""Share used by other programs above which a warning says so."""
NO_GPU = (
    "the NVIDIA driver shows no GPU here: a container needs --gpus all; without a GPU set "
    "instances.cpu_only: true"
)


def tasks(run: Run) -> Iterator[Task]:
    yield step(
        run,
        "gpus",
        "The GPUs that the instances need",
        check=partial(_why_not_ready, run),
        action=partial(_record, run),
        preview=partial(_preview, run),
        after=["validation"],
    )


def device_of(run: Run, instance: Instance) -> str:
    """An instance's CUDA_VISIBLE_DEVICES; empty hides every GPU.

    Raises Failure when `pin: uuid` has no GPU recorded for it yet.
    """
    if instance.cpu_only:
        return ""
    if instance.device:
        return instance.device
    if run.machine.instances.pin == "index":
        return str(instance.gpu)
    if uuid := _read_pins(run.layout).get(instance.name):
        return uuid
    raise Failure(f"the GPU of {instance.name} isn't recorded yet: run doit gpus")


def assigned(run: Run, instances: Sequence[Instance]) -> dict[int, Gpu]:
    """Instance number → its GPU, as far as the driver reports it."""
    if run.machine.instances.cpu_only or not instances:
        return {}
    try:
        here = gpu.inventory()
    except Failure:
        return {}
    pins = _read_pins(run.layout) if run.machine.instances.pin == "uuid" else {}
    found = {
        each.gpu: gpu.of(here, each.gpu, pins.get(each.name))
        for each in instances
        if not each.device
    }
    return {number: card for number, card in found.items() if card}


def _why_not_ready(run: Run) -> str | None:
    """Ask NVML only before an instance starts, which keeps a run with nothing to do cheap."""
    if run.machine.instances.cpu_only or not run.machine.enabled:
        return None
    if new := _without_pin(run):
        return f"the GPU of {', '.join(each.name for each in new)} isn't recorded yet"
    if not run.instances or _not_running(run):
        _check(run)
    return None


def _record(run: Run, log: Path) -> None:
    _preview(run, log)


def _preview(run: Run, log: Path) -> list[str]:
    """Raise Failure for an unusable GPU; record the GPUs of new instances."""
    if run.machine.instances.cpu_only or not run.machine.enabled:
        return []
    pins = _check(run)
    known = _read_pins(run.layout) if pins else {}
    if pins != known:
        _write_pins(run.layout, pins)
    return [f"{name} on {uuid}" for name, uuid in pins.items() if known.get(name) != uuid]


def _not_running(run: Run) -> list[Instance]:
    running = {app.name for app in apps.running(run.machine.workspace, None)}
    return [instance for instance in run.instances if instance.name not in running]


def _check(run: Run) -> dict[str, str]:
    """Instance → UUID of its GPU; empty with `pin: index`.

    Raises Failure when an instance can't start on its GPU; warns when other programs use part
    of it.
    """
    here = gpu.inventory()
    if not here:
        raise Failure(NO_GPU)
    if not run.instances:
        raise Failure(
            f"gpus: auto found no /dev/nvidia<N>, but the driver shows {len(here)}: "
            f"set instances.gpus: {len(here)}"
        )
    pins = _add_pins(run, here) if run.machine.instances.pin == "uuid" else {}
    asked = [*_not_running(run), *_without_pin(run)]
    # An instance that names a part of a GPU needs no whole one.
    whole = [each for each in run.instances if each in asked and not each.device]
    pairs = [(each, gpu.of(here, each.gpu, pins.get(each.name))) for each in whole]
    wrong = _missing_gpus(run, [each for each, card in pairs if not card], pins, here)
    ours = apps.family(run.machine.workspace)
    wrong += [why for each, card in pairs if card and (why := _obstacle(each, card, ours))]
    if wrong:
        raise Failure("; ".join(wrong))
    for instance, card in pairs:
        if card and _share_of_others(card, ours) > WARN_SHARE:
            run.warn(f"{card}: {_usage(card, ours)}; {instance.name} gets the rest")
    return pins


def _missing_gpus(
    run: Run, instances: Sequence[Instance], pins: dict[str, str], here: Sequence[Gpu]
) -> list[str]:
    """One line for each instance whose GPU is missing."""
    silent = [f"{card}: {card.trouble}" for card in here if card.trouble and not card.uuid]
    aside = f" ({', '.join(silent)})" if silent else ""
    found = [
        f"{pins[each.name]}, the GPU of {each.name}, is missing{aside}: put it back, or "
        f"delete its line in {run.layout.gpus} to give {each.name} another"
        for each in instances
        if each.name in pins
    ]
    if beyond := [str(each.gpu) for each in instances if each.name not in pins]:
        there = "there is 1" if len(here) == 1 else f"there are {len(here)}"
        advice = "correct instances.gpus"
        if run.machine.instances.gpus == "auto":
            advice = f"dmesg may show why; or set instances.gpus: {len(here)}"
        found.append(f"no GPU {', '.join(beyond)} here, {there}: {advice}")
    return found


def _obstacle(instance: Instance, card: Gpu, ours: set[int]) -> str | None:
    """Why the instance can't start on its GPU, and what to do."""
    elsewhere = "or leave it out of instances.gpus"
    smi = f"nvidia-smi -i {card.index}"
    if card.trouble:
        return (
            f"{card} is unusable, NVML reports: {card.trouble}: reset it ({smi} --gpu-reset), "
            f"reboot, {elsewhere}"
        )
    if card.mig:
        return (
            f"{card} is split by MIG: run {smi} -mig 0, or name one of its parts (nvidia-smi -L): "
            f"instances.overrides: {{{instance.gpu}: {{env: {{CUDA_VISIBLE_DEVICES: MIG-…}}}}}}"
        )
    if card.mode == "Prohibited":
        return f"{card} accepts no programs (compute mode Prohibited): run {smi} -c DEFAULT"
    computing = [each for each in card.processes if each.computes and each.pid not in ours]
    if card.mode == "Exclusive_Process" and computing:
        return (
            f"{card} is in exclusive use (compute mode Exclusive_Process) by {_who(computing)}: "
            f"end that process, or run {smi} -c DEFAULT"
        )
    if _share_of_others(card, ours) >= FULL_SHARE:
        return f"{card} is full, {_usage(card, ours)}: end those processes, {elsewhere}"
    return None


def _usage(card: Gpu, ours: set[int]) -> str:
    others = [each for each in card.processes if each.pid not in ours]
    return f"{gib(_bytes_of_others(card, ours))} of {gib(card.total)} used by {_who(others)}"


def _who(processes: Sequence[gpu.Process]) -> str:
    if not processes:
        return "processes that aren't visible here (another container?)"
    largest_first = sorted(processes, key=lambda each: each.memory or 0, reverse=True)
    return ", ".join(map(str, largest_first))


def _share_of_others(card: Gpu, ours: set[int]) -> float:
    return _bytes_of_others(card, ours) / card.total if card.total else 0.0


def _bytes_of_others(card: Gpu, ours: set[int]) -> int:
    """Bytes used by other programs: all that isn't known to be ours, since not every process
    is visible."""
    own = [each.memory for each in card.processes if each.pid in ours]
    if None in own:
        return sum(each.memory or 0 for each in card.processes if each.pid not in ours)
    return max(card.used - sum(size or 0 for size in own), 0)


def _read_pins(layout: Layout) -> dict[str, str]:
    """Instance → UUID, as recorded.

    Raises Failure for a damaged file: a new one might swap the GPUs of two instances.
    """
    file = layout.seen(layout.gpus)
    found = files.read_receipt(file, gpus=dict)
    if not found and file.exists():
        raise Failure(f"{file} is damaged: repair it, or delete it to pin every instance again")
    return {str(name): str(uuid) for name, uuid in found.get("gpus", {}).items()}


def _without_pin(run: Run) -> list[Instance]:
    """The instances that still need a recorded GPU."""
    if run.machine.instances.pin != "uuid":
        return []
    known = _read_pins(run.layout)
    return [each for each in run.instances if each.name not in known and not each.device]


def _add_pins(run: Run, here: Sequence[Gpu]) -> dict[str, str]:
    """Instance → UUID, with a GPU for each instance that has none recorded; writes nothing.

    An instance gets the free GPU with its index, else the first free one, last those of instances
    that left machine.yaml. It gets none if its index is beyond `here` or its GPU is in trouble.
    Raises Failure when no GPU is free.
    """
    known = _read_pins(run.layout)
    names = {instance.name for instance in run.instances}
    left = {uuid for name, uuid in known.items() if name not in names}
    for instance in _without_pin(run):
        if instance.gpu >= len(here) or here[instance.gpu].trouble:
            continue
        taken = {uuid for name, uuid in known.items() if name in names}
        free = [card for card in here if not card.trouble and card.uuid not in taken]
        if not free:
            raise Failure(
                f"no GPU is free for {instance.name}: {run.layout.gpus} gives all usable ones "
                "to others: correct instances.gpus, or delete a line there"
            )
        chosen = min(free, key=lambda card: (card.uuid in left, card.index != instance.gpu))
        known = {name: uuid for name, uuid in known.items() if uuid != chosen.uuid}
        known[instance.name] = chosen.uuid
    return known


def _write_pins(layout: Layout, pins: dict[str, str]) -> None:
    files.write_receipt(layout.kept(layout.gpus), {"gpus": pins})
