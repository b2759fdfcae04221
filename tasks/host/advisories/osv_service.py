"""A service with the API of osv.dev: which advisories are about what.

Source: https://google.github.io/osv.dev/post-v1-querybatch/ and get-v1-vulns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from ..downloads import json_answer
from ..downloads.web import Web
from ..system import thread_pool
from ..system.failure import Failure
from .osv_document import GIT, PYPI, Advisory, Subject, advisory

MOST = 1000
"""Questions of one request, by OSV's own limit."""
PAGES = 20
READERS = 8
LABEL = "advisories"
_JSON = {"Content-Type": "application/json", "Accept": "application/json"}


@dataclass(frozen=True)
class Service:
    """The service at an address. Raises Failure when it doesn't answer."""

    address: str
    web: Web

    @property
    def label(self) -> str:
        return urlsplit(self.address).netloc

    def ask(self, subjects: Sequence[Subject]) -> dict[Subject, list[Advisory]]:
        """What affects each of these."""
        ids = {each: list[str]() for each in subjects}
        waiting = [(each, _question(each)) for each in subjects]
        for _ in range(PAGES):
            asked, waiting = waiting[:MOST], waiting[MOST:]
            for (subject, question), answer in zip(asked, self._batch(asked), strict=True):
                ids[subject] += _ids(answer)
                if token := answer.get("next_page_token"):
                    waiting.append((subject, {**question, "page_token": token}))
            if not waiting:
                return self._described(ids)
        raise Failure(f"{self.label} has more advisories than can be read")

    def _batch(self, asked: Sequence[tuple[Subject, Any]]) -> Iterator[Mapping[str, Any]]:
        body = json.dumps({"queries": [question for _, question in asked]}).encode()
        address = f"{self.address}/v1/querybatch"
        _, answer = self.web.ask(address, LABEL, json_answer.read, _JSON, body=body)
        results = answer.get("results") if isinstance(answer, dict) else None
        if not isinstance(results, list) or len(results) != len(asked):
            raise Failure(f"{self.label} doesn't answer as OSV does: correct registry.advisories")
        yield from (each if isinstance(each, dict) else {} for each in results)

    def _described(self, ids: Mapping[Subject, Sequence[str]]) -> dict[Subject, list[Advisory]]:
        names = sorted({name for every in ids.values() for name in every})
        known: dict[str, Advisory | None] = {}
        for name, answer in thread_pool.each(self._advisory, names, READERS):
            # One that can't be described is one all the same.
            known[name] = Advisory(name, "") if isinstance(answer, BaseException) else answer
        return {
            subject: [found for name in every if (found := known[name])]
            for subject, every in ids.items()
        }

    def _advisory(self, name: str) -> Advisory | None:
        """None: it was withdrawn."""
        address = f"{self.address}/v1/vulns/{quote(name, safe='')}"
        _, answer = self.web.ask(address, LABEL, json_answer.read, _JSON)
        return advisory(answer) if isinstance(answer, dict) else Advisory(name, "")


def _question(subject: Subject) -> dict[str, Any]:
    if subject.package:
        package = {"name": subject.package, "ecosystem": PYPI}
        return {"package": package, "version": subject.version}
    if subject.commit:
        return {"commit": subject.commit}
    package = {"name": subject.repository, "ecosystem": GIT}
    return {"package": package, "version": subject.version}


def _ids(answer: Mapping[str, Any]) -> list[str]:
    found = answer.get("vulns")
    listed = found if isinstance(found, list) else []
    return [str(each["id"]) for each in listed if isinstance(each, dict) and each.get("id")]
