"""The waiting jobs: whatever comes and goes, the first of each line is found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from comfy_machine.services.jobs.backlog import Backlog
from comfy_machine.services.jobs.demand import Need, Waiting

CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["add", "remove", "pass"]),
        st.sampled_from("abcdefgh"),
        st.integers(0, 3),
        st.sampled_from("xy"),
    ),
    max_size=60,
)


@given(CHANGES)
def test_of_each_line_the_job_that_waits_longest_comes_first(
    changes: list[tuple[str, str, int, str]],
) -> None:
    backlog, known = Backlog(), dict[str, Waiting]()
    for what, name, since, owner in changes:
        if what == "add":
            known[name] = Waiting(name, Need(), float(since), owner=owner)
            backlog.add(known[name])
        elif what == "remove":
            assert (backlog.remove(name) is None) == (known.pop(name, None) is None)
        else:
            backlog.pass_over([name], 5.0)
        first = {
            owner: min((each.since, each.id) for each in known.values() if each.owner == owner)
            for owner in {each.owner for each in known.values()}
        }
        assert {each.owner: (each.since, each.id) for each in backlog.heads()} == first
        assert {each.id for each in backlog} == known.keys()
        assert len(backlog) == len(known)


def test_a_job_that_was_given_back_keeps_its_place() -> None:
    backlog = Backlog()
    for number in range(3):
        backlog.add(Waiting(str(number), Need(), float(number)))
    first = backlog.remove("0")
    assert first is not None
    assert [each.id for each in backlog.heads()] == ["1"]
    backlog.add(first)
    assert [each.id for each in backlog.heads()] == ["0"]


def test_that_others_went_first_is_noted_once() -> None:
    backlog = Backlog()
    backlog.add(Waiting("one", Need(), 0.0))
    backlog.pass_over(["one", "nobody"], 5.0)
    backlog.pass_over(["one"], 9.0)
    assert [each.passed for each in backlog.heads()] == [5.0]
