"""What the health server asks of the gateway, each within a limit of time and of size."""

from __future__ import annotations

import os
from http.client import HTTPException

from ....host.comfyui import exchange
from ....host.comfyui.exchange import Answer

TOKEN = "JOBS_TOKEN"
"""The variable with what the gateway asks for."""
SHOWN = 200
"""Characters that are kept of what it answers instead."""


class Silent(OSError):  # noqa: N818  reads as what is the matter
    """Why there is no answer, or none of use."""


def ask(gateway: str, path: str, timeout: float, longest: int) -> Answer:
    """The answer to a GET, of at most `longest` bytes, within `timeout` seconds.

    Raises Silent.
    """
    # As bytes, since http.client encodes text as Latin-1.
    token = os.environ.get(TOKEN, "").strip().encode(errors="surrogateescape")
    headers = {"Authorization": b"Bearer " + token} if token else {}
    try:
        answer = exchange.request(gateway, path, timeout, longest, headers=headers)
    except TimeoutError:
        raise Silent(f"the gateway doesn't answer within {timeout:g} s") from None
    except OSError:
        raise Silent("the gateway doesn't answer") from None
    except (HTTPException, ValueError) as error:
        raise Silent(f"the gateway doesn't answer as it should: {str(error)[:SHOWN]}") from None
    if answer.status != 200:
        raise Silent(_reason(answer))
    return answer


def _reason(answer: Answer) -> str:
    """Why it refuses, in its own words."""
    try:
        return f"the gateway says: {str(answer.json()['error']['message'])[:SHOWN]}"
    except (ValueError, LookupError, TypeError, RecursionError):
        return f"the gateway answers with code {answer.status}"
