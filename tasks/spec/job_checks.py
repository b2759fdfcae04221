"""Checks across the fields of `jobs`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .problems import Loc

WORKER = "jobs"
"""The name of the worker that runs jobs beside each instance."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def check(jobs: Any) -> Iterator[tuple[Loc, str]]:
    """Problems of `jobs` in machine.yaml, which may be anything."""
    if not isinstance(jobs, dict):
        return
    if jobs.get("url") is None:
        for name in ("credentials", "tls"):
            if jobs.get(name) is not None:
                yield ("jobs", name), "has no meaning without url: it is for a server of your own"
        if jobs.get("store") is not None:
            yield ("jobs", "store"), "has no meaning without url: it is for several machines"
        if jobs.get("replicas") == 3:
            yield ("jobs", "replicas"), "needs url: our own NATS server is one, not a cluster"
    elif jobs.get("port") is not None:
        yield ("jobs", "port"), "has no meaning beside url: remove one of them"
    tls = jobs.get("tls")
    tls = tls if isinstance(tls, dict) else {}
    for name, other in (("cert", "key"), ("key", "cert")):
        if tls.get(name) is not None and tls.get(other) is None:
            yield ("jobs", "tls", name), f"means nothing without {other}: give both"
    listen = jobs.get("listen")
    is_far = isinstance(listen, str) and not {*listen.split(",")} <= {*LOOPBACK}
    if is_far and jobs.get("token") is None:
        yield ("jobs", "listen"), "lets other hosts run any workflow here: give a token too"
