"""Whether a job can run on an instance, and why it can on none."""

from __future__ import annotations

from comfy_machine.services.jobs.demand import Instance, Need, Waiting, fits, why_unfit

NEED = Need(classes=frozenset({"KSampler", "Blur"}), models=frozenset({"loras/x.safetensors"}))
JOB = Waiting("job", NEED, 0.0)


def test_what_is_not_known_stands_in_no_jobs_way() -> None:
    assert fits(JOB, Instance("gpu0"))
    assert why_unfit(JOB, [Instance("gpu0")]) is None
    assert why_unfit(JOB, []) is None


def test_what_no_instance_has_is_named() -> None:
    bare = Instance("gpu0", classes=frozenset({"KSampler"}), models=frozenset())
    assert why_unfit(JOB, [bare, bare]) == (
        "no instance has model loras/x.safetensors, node class Blur"
    )


def test_where_each_lacks_something_else_the_nearest_is_named() -> None:
    no_model = Instance("gpu0", classes=NEED.classes, models=frozenset())
    no_class = Instance("gpu1", classes=frozenset(), models=NEED.models)
    assert why_unfit(JOB, [no_class, no_model]) == (
        "no instance has all that it needs; gpu0 lacks model loras/x.safetensors"
    )


def test_out_of_memory_asks_for_a_larger_card() -> None:
    job = Waiting("job", Need(), 0.0, above=24 * 10**9)
    small, large = Instance("gpu0", memory=24 * 10**9), Instance("gpu1", memory=80 * 10**9)
    assert not fits(job, small)
    assert fits(job, large)
    assert why_unfit(job, [small]) == "no instance has more than 24 GB of GPU memory"
