"""doit info: what a person sees of one step, and nothing of what lies inside."""

from __future__ import annotations

from tests.conftest import MachineMaker


def test_a_step_says_what_it_waits_for_and_why_it_would_run(machine: MachineMaker) -> None:
    rig = machine()
    assert rig.doit("info", "environment", code=1).output == (
        "environment: The Python environment, one install for ComfyUI and all custom nodes\n"
        "  would run: environment was never made\n"
        "  waits for: lock\n"
    )
    rig.doit("build")
    assert rig.doit("info", "environment").output.splitlines()[1:] == [
        "  up to date",
        "  waits for: lock",
        f"  log: {rig.layout.log('environment')}",
    ]


def test_a_stage_names_its_steps(machine: MachineMaker) -> None:
    rig = machine(instances={"gpus": 2})
    assert "its steps: health:gpu0, health:gpu1" in rig.doit("info", "health").output
    assert "name one step: doit info environment" in rig.doit("info", code=3).output
