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
from .host.system.program_files import PROGRAM
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
    raise Failure(f"the GPU of {instance.name} isn't recorded yet: run {PROGRAM} gpus")


def assigned(run: Run, instances: Sequence[Instance]) -> dict[int, Gpu]:
    """Instance number → its GPU, as far as the driver reports it."""
    if run.machine.instances.cpu_only or not instances:
        return {}
    try:
        cards = gpu.inventory()
    except Failure:
        return {}
    pins = _read_pins(run.layout) if run.machine.instances.pin == "uuid" else {}
    return {
        each.gpu: card
        for each in instances
        if not each.device and (card := gpu.of(cards, each.gpu, pins.get(each.name)))
    }


def _why_not_ready(run: Run) -> str | None:
    """Ask NVML only before an instance starts, which keeps a run with nothing to do cheap."""
    if _needs_none(run):
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
    if _needs_none(run):
        return []
    pins = _check(run)
    recorded = _read_pins(run.layout) if pins else {}
    if pins != recorded:
        files.write_receipt(run.layout.write_path(run.layout.gpus), {"gpus": pins})
    return [f"{name} on {uuid}" for name, uuid in pins.items() if recorded.get(name) != uuid]


def _needs_none(run: Run) -> bool:
    every_one_cordoned = bool(run.cordoned) and not run.instances
    return run.machine.instances.cpu_only or not run.machine.enabled or every_one_cordoned


def _not_running(run: Run) -> list[Instance]:
    running = {app.name for app in apps.running(run.machine.workspace, None)}
    return [instance for instance in run.instances if instance.name not in running]


def _check(run: Run) -> dict[str, str]:
    """Instance → UUID of its GPU; empty with `pin: index`.

    Raises Failure when an instance can't start on its GPU; warns when other programs use part
    of it.
    """
    cards = gpu.inventory()
    if not cards:
        raise Failure(NO_GPU)
    if not run.instances:
        raise Failure(
            f"gpus: auto found no /dev/nvidia<N>, but the driver shows {len(cards)}: "
            f"set instances.gpus: {len(cards)}"
        )
    pins = _add_pins(run, cards) if run.machine.instances.pin == "uuid" else {}
    to_start = [*_not_running(run), *_without_pin(run)]
    # An instance that names a part of a GPU needs no whole one.
    whole = [each for each in run.instances if each in to_start and not each.device]
    pairs = [(each, gpu.of(cards, each.gpu, pins.get(each.name))) for each in whole]
    problems = _missing_gpus(run, [each for each, card in pairs if not card], pins, cards)
    ours = apps.family(run.machine.workspace)
    problems += [why for each, card in pairs if card and (why := _obstacle(each, card, ours))]
    if problems:
        raise Failure("; ".join(problems))
    for instance, card in pairs:
        if card and _share_of_others(card, ours) > WARN_SHARE:
            run.warn(f"{card}: {_usage(card, ours)}; {instance.name} gets the rest")
    return pins


def _missing_gpus(
    run: Run, instances: Sequence[Instance], pins: dict[str, str], cards: Sequence[Gpu]
) -> list[str]:
    unidentified = [f"{card}: {card.trouble}" for card in cards if card.trouble and not card.uuid]
    remark = f" ({', '.join(unidentified)})" if unidentified else ""
    problems = [
        f"{pins[each.name]}, the GPU of {each.name}, is missing{remark}: put it back, or "
        f"delete its line in {run.layout.gpus} to give {each.name} another"
        for each in instances
        if each.name in pins
    ]
    if beyond := [str(each.gpu) for each in instances if each.name not in pins]:
        number = "there is 1" if len(cards) == 1 else f"there are {len(cards)}"
        advice = "correct instances.gpus"
        if run.machine.instances.gpus == "auto":
            advice = f"dmesg may show why; or set instances.gpus: {len(cards)}"
        problems.append(f"no GPU {', '.join(beyond)} here, {number}: {advice}")
    return problems


def _obstacle(instance: Instance, card: Gpu, ours: set[int]) -> str | None:
    leave_out = "or leave it out of instances.gpus"
    smi = f"nvidia-smi -i {card.index}"
    if card.trouble:
        return (
            f"{card} is unusable, NVML says: {card.trouble}: reset it ({smi} --gpu-reset), "
            f"reboot, {leave_out}"
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
        return f"{card} is full, {_usage(card, ours)}: end those processes, {leave_out}"
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
    our_memory = [each.memory for each in card.processes if each.pid in ours]
    if None in our_memory:
        return sum(each.memory or 0 for each in card.processes if each.pid not in ours)
    return max(card.used - sum(size or 0 for size in our_memory), 0)


def _read_pins(layout: Layout) -> dict[str, str]:
    """Instance → UUID, as recorded.

    Raises Failure for a damaged file: a new one might swap the GPUs of two instances.
    """
    file = layout.read_path(layout.gpus)
    receipt = files.read_receipt(file, gpus=dict)
    if not receipt and file.exists():
        raise Failure(f"{file} is damaged: repair it, or delete it to pin every instance again")
    return {str(name): str(uuid) for name, uuid in receipt.get("gpus", {}).items()}


def _without_pin(run: Run) -> list[Instance]:
    if run.machine.instances.pin != "uuid":
        return []
    pins = _read_pins(run.layout)
    return [each for each in run.instances if each.name not in pins and not each.device]


def _add_pins(run: Run, cards: Sequence[Gpu]) -> dict[str, str]:
    """Instance → UUID, with a GPU for each instance that has none recorded; writes nothing.

    An instance gets the free GPU with its index, else the first free one, last those of instances
    that left machine.yaml. It gets none if its index is beyond `cards` or its GPU is in trouble.
    Raises Failure when no GPU is free.
    """
    pins = _read_pins(run.layout)
    # A cordoned GPU stays that of its instance.
    cordoned = {run.machine.instance(number).name for number in run.cordoned}
    names = {instance.name for instance in run.instances} | cordoned
    released = {uuid for name, uuid in pins.items() if name not in names}
    for instance in _without_pin(run):
        if instance.gpu >= len(cards) or cards[instance.gpu].trouble:
            continue
        taken = {uuid for name, uuid in pins.items() if name in names}
        free = [card for card in cards if not card.trouble and card.uuid not in taken]
        if not free:
            raise Failure(
                f"no GPU is free for {instance.name}: {run.layout.gpus} gives all usable ones "
                "to others: correct instances.gpus, or delete a line there"
            )
        chosen = min(free, key=lambda card: (card.uuid in released, card.index != instance.gpu))
        pins = {name: uuid for name, uuid in pins.items() if uuid != chosen.uuid}
        pins[instance.name] = chosen.uuid
    return pins
