"""uv's error output as one short line for people; decides nothing."""

from __future__ import annotations

import re

from ..system import process

LONGEST = 300
"""Characters of a line."""

#: Phrases that only say that it failed.
FRAME = re.compile(
    r"^No solution found when resolving dependencies |"
    r", we can conclude that your requirements are unsatisfiable\.$"
)


def gist(output: str) -> str:
    """uv's error without its hints; of a build log, only the last line."""
    error = re.split(r"^(?:error: |  × )", output, maxsplit=1, flags=re.M)[-1]
    error = re.split(r"^hint:", error, maxsplit=1, flags=re.M)[0]
    head, *logs = re.split(r"^\s+(?:\[std(?:out|err)\]|--- std(?:out|err))$", error, flags=re.M)
    summary = head.strip().splitlines()[0] if logs else head
    text = FRAME.sub("", re.sub(r"\s+", " ", summary.replace("cause:", "")).strip())
    if logs:
        text += f": {process.last_line(logs[-1])}"
    text = text or process.last_line(output)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def refused(output: str) -> str | None:
    """A message about an index that refuses the credentials; None if that isn't the cause.

    uv then treats each package as missing from the index, and gives the reason in a hint.
    """
    match = re.search(r"^hint: An index URL \((\S+)\) .*\((40[13] \w+)\)", output, re.M)
    return match and (
        f"{match[1]} answers {match[2]}: correct its credentials, which are in the variables that "
        "python.extra_index_urls names, in UV_INDEX or in ~/.netrc"
    )
