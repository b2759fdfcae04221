"""Variables that are not set: all of them in one run, each with its place in machine.yaml."""

from __future__ import annotations

import re

from tests.conftest import MachineMaker
from tests.forge import Forge


def test_all_that_is_missing_is_told_in_one_run_with_where_it_stands(
    machine: MachineMaker, forge: Forge
) -> None:
    node = {"url": forge.node("alpha").url, "env": {"A": "${A_X}", "B": "${B_X}", "C": "${SET}"}}
    other = {"url": forge.node("beta").url, "env": {"A": "${A_X}"}}
    rig = machine(
        custom_nodes=[other, node],
        instances={
            "env": {"D": "${D_X}"},
            "overrides": {0: {"env": {"E": "${E_X}"}}},
        },
        workers=[{"name": "one", "command": ["sleep", "9"], "env": {"G": "${G_X}${H_X}"}}],
        models={
            "files": [
                {"target": f"vae/{number}.pt", "source": f"/nowhere/{number}"}
                for number in range(5)
            ]
        },
    )
    for command in ("up", "plan"):
        run = rig.doit(command, code=2, SET="1")
        told = re.findall(r"machine\.yaml:(\d+): (\S+): the variable (\w+) isn't set", run.output)
        assert [(place, name) for _, place, name in told] == [
            ("custom_nodes[0].env.A", "A_X"),
            ("custom_nodes[1].env.A", "A_X"),
            ("custom_nodes[1].env.B", "B_X"),
            ("instances.env.D", "D_X"),
            ("instances.overrides[0].env.E", "E_X"),
            ("workers[0].env.G", "G_X"),
            ("workers[0].env.G", "H_X"),
        ]
        lines = rig.file.read_text().splitlines()
        assert all(name in lines[int(line) - 1] for line, _, name in told)
        sources = re.findall(
            r"machine\.yaml:\d+: models\.files\[(\d)\]\.source: the source of vae/(\d)\.pt is "
            r"missing: /nowhere/\d; mount it or correct source",
            run.output,
        )
        assert sources == [(str(number), str(number)) for number in range(5)]
    assert rig.running() == {}
