"""The record of a job: one JSON value, of which each step is a compare-and-swap."""

from __future__ import annotations

import secrets
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["waiting", "leased", "succeeded", "failed", "cancelled", "dead"]
ENDED: frozenset[State] = frozenset(["succeeded", "failed", "cancelled", "dead"])
"""States that nothing follows but a `retry` by hand."""
FOLLOWS: dict[State, frozenset[State]] = {
    "waiting": frozenset(["leased", "cancelled", "dead", "failed"]),
    "leased": frozenset(["waiting", *ENDED]),
    "dead": frozenset(["waiting"]),
    "failed": frozenset(["waiting"]),
}
"""State → those that may follow it."""


class Error(BaseModel):
    """Why a job didn't succeed, as ComfyUI or we say it."""

    model_config = ConfigDict(frozen=True)

    type: str
    message: str
    node: str = ""
    node_type: str = ""


class Webhook(BaseModel):
    """Who is told of the end of a job, and whether that has been done. Times are in seconds since
    the epoch."""

    model_config = ConfigDict(frozen=True)

    url: str
    attempts: int = 0
    due: float = 0.0
    """Before this time nobody tries again."""
    told: float = 0.0
    """When the end was told; 0: it wasn't yet."""
    given_up: bool = False
    """Nobody tries again."""
    error: str = ""
    """Why the last attempt failed."""

    @property
    def state(self) -> Literal["pending", "delivered", "failed"]:
        return "delivered" if self.told else "failed" if self.given_up else "pending"


class Record(BaseModel):
    """A job. Times are in seconds since the epoch, sizes in bytes."""

    model_config = ConfigDict(frozen=True)

    id: str
    """Also its prompt_id at ComfyUI: a canonical UUID."""
    state: State = "waiting"
    submitted: float
    workflow: str = ""
    """Its sha256."""
    large: bool = False
    """It lies in the object store."""
    priority: int = 0
    owner: str = ""
    classes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    memory: int = 0
    checkpoint: str = ""
    nodes: int = 0
    """How many nodes its workflow has."""
    labels: dict[str, str] = Field(default_factory=dict)
    """What its submitter tells it by."""
    keys: str = ""
    """The name of its partners' API keys (`partner_keys`); empty: it has none."""
    client: str = ""
    """The clientId of ComfyUI's own protocol that hears of it; empty: none."""
    webhook: Webhook | None = None
    """None: nobody is told of its end."""
    above: int = 0
    """It ran out of memory on a GPU of this size."""
    attempt: int = 0
    """How often it was leased to an instance: this number tells one lease from another."""
    returned: int = 0
    """How many of these were given back, by a worker that was asked to end or never began."""
    instance: str = ""
    """Where it runs or ran last."""
    cancel: bool = False
    """Somebody wants it ended."""
    started: float = 0.0
    """When it was leased last."""
    ended: float = 0.0
    outputs: dict[str, Any] = Field(default_factory=dict)
    sizes: dict[str, int] = Field(default_factory=dict)
    """Of the files that they name."""
    machine: str = ""
    """Which has these files; empty: the only one there is."""
    stored: bool = False
    """The object store has them too."""
    gone: bool = False
    """They were removed, since the disk was full."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Values in the workflow that name files → the blake3 of their bytes, where several machines
    may run it."""
    origin: str = ""
    """The machine that has these."""
    rested: int = 0
    """How often it was given back since they couldn't be had: it rests before it is tried again."""
    error: Error | None = None
    nonce: str = ""
    """Of the write: whose acknowledgement was lost knows its own by it."""

    @property
    def counted(self) -> int:
        """The attempts that count."""
        return self.attempt - self.returned

    def is_leased_to(self, instance: str, attempt: int | None = None) -> bool:
        """Whether this instance has it, and by this attempt if one is named."""
        is_its = self.state == "leased" and self.instance == instance
        return is_its and attempt in (None, self.attempt)

    def given_back(self) -> dict[str, Any]:
        """What follows for a job that is given back: that counts no attempt."""
        return {"state": "waiting", "returned": self.returned + 1}

    def next(self, state: State, **changes: Any) -> Record:
        """This job in another state. Raises ValueError when that doesn't follow this one."""
        if state not in FOLLOWS.get(self.state, ()):
            raise ValueError(f"job {self.id} is {self.state}: {state} doesn't follow")
        return self.changed(state=state, **changes)

    def changed(self, **changes: Any) -> Record:
        """This job with other values, as a write of its own."""
        return self.model_copy(update={**changes, "nonce": secrets.token_hex(8)})
