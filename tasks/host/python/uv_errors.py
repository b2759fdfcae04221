"""What uv says when it fails, in one short line for people; nothing is decided by it."""

from __future__ import annotations

import re

from ..system import process

LONGEST = 300
"""Characters of a line."""


#: What says no more than that it failed.
FRAME = re.compile(
    r"^No solution found when resolving dependencies |"
    r", we can conclude that your requirements are unsatisfiable\.$"
)


def gist(output: str) -> str:
    """uv's error without its advice on other things; of a build's log the last line."""
    error = re.split(r"^(?:error: |  × )", output, maxsplit=1, flags=re.M)[-1]
    error = re.split(r"^hint:", error, maxsplit=1, flags=re.M)[0]
    head, *logs = re.split(r"^\s+(?:\[std(?:out|err)\]|--- std(?:out|err))$", error, flags=re.M)
    said = head.strip().splitlines()[0] if logs else head
    text = FRAME.sub("", re.sub(r"\s+", " ", said.replace("cause:", "")).strip())
    if logs:
        text += f": {process.last_line(logs[-1])}"
    text = text or process.last_line(output)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def refused(output: str) -> str | None:
    """What to say of an index that wants other credentials, if that is the cause.

    uv then takes each package for one that the index doesn't have, and says why in a hint.
    """
    found = re.search(r"^hint: An index URL \((\S+)\) .*\((40[13] \w+)\)", output, re.M)
    return found and (
        f"{found[1]} answers {found[2]}: correct its credentials, which are in the variables that "
        "python.extra_index_urls names, in UV_INDEX or in ~/.netrc"
    )
