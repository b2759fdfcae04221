"""What a client submits: one workflow in API format, and what goes with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from yarl import URL

from ..jobs.partner_keys import LONGEST, NAMES, Keys
from .refused import Refused

MOST_LABELS, LONGEST_KEY, LONGEST_VALUE = 16, 64, 256
"""Labels of a job, and characters of each."""
LONGEST_URL = 2048
"""Characters of the URL of a webhook."""
PRIORITIES = range(-1_000_000, 1_000_001)
Workflow = dict[str, Any]


@dataclass(frozen=True)
class Submission:
    """One job before it has a record."""

    workflow: Workflow
    priority: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    client: str = ""
    webhook: str = ""
    """The URL that is told of its end; empty: none is."""
    key: str = ""
    """Two submissions of an owner with one key are one job; empty: no other is this one."""
    id: str = ""
    """Which the client chose; empty: it didn't."""
    front: bool = False
    """Before all others of its priority."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What ComfyUI gets beside the workflow."""
    keys: Keys = field(default_factory=dict)
    """API keys for nodes that ask a partner's service."""


def checked_workflow(workflow: object) -> Workflow:
    """The workflow. Raises Refused where it can't be one; ComfyUI checks the rest."""
    if not isinstance(workflow, dict) or not workflow:
        raise Refused(422, "invalid_workflow", "'workflow' is missing or no API-format graph")
    if isinstance(workflow.get("nodes"), list) and "links" in workflow:
        raise Refused(
            422, "workflow_format_ui", "this is the editor's format; export it in API format"
        )
    for name, node in workflow.items():
        if not isinstance(node, dict) or not isinstance(node.get("class_type"), str):
            raise Refused(
                422,
                "invalid_workflow",
                f"node {name[:80]} has no class_type",
                {"node_errors": {name: [{"field": "class_type", "reason": "missing_input"}]}},
            )
        if not isinstance(node.get("inputs", {}), dict):
            raise Refused(422, "invalid_workflow", f"the inputs of node {name[:80]} are no object")
    return workflow


def checked_keys(extra: dict[str, Any]) -> Keys:
    """The API keys among ComfyUI's extra_data. Raises Refused."""
    keys = {name: extra[name] for name in NAMES if extra.get(name) is not None}
    for name, key in keys.items():
        if not isinstance(key, str) or len(key) > LONGEST:
            raise Refused(400, "invalid_request", f"'{name}' is no text of up to {LONGEST}")
    return keys


def checked_priority(priority: object) -> int:
    """Raises Refused."""
    if priority is None:
        return 0
    if not isinstance(priority, int) or isinstance(priority, bool) or priority not in PRIORITIES:
        raise Refused(422, "invalid_request", "'priority' is no integer from -1000000 to 1000000")
    return priority


def checked_labels(labels: object) -> dict[str, str]:
    """Raises Refused."""
    if labels is None:
        return {}
    if not isinstance(labels, dict):
        raise Refused(422, "metadata_invalid", "'metadata' is no object of strings")
    if len(labels) > MOST_LABELS:
        raise Refused(422, "metadata_invalid", f"{len(labels)} labels, {MOST_LABELS} at most")
    for key, value in labels.items():
        if not isinstance(value, str) or len(value) > LONGEST_VALUE:
            raise Refused(
                422,
                "metadata_invalid",
                f"label {key[:LONGEST_KEY]}: no text of up to {LONGEST_VALUE} characters",
            )
        if not key or len(key) > LONGEST_KEY:
            raise Refused(
                422,
                "metadata_invalid",
                f"label {key[:LONGEST_KEY]}: its name has not 1 to {LONGEST_KEY} characters",
            )
    return labels


def checked_webhook(url: object) -> str:
    """The URL; empty: none is given. Raises Refused."""
    if url is None or url == "":
        return ""
    if not isinstance(url, str) or len(url) > LONGEST_URL or not _is_web(url):
        raise Refused(
            422,
            "invalid_request",
            f"'webhook_url' is no http or https URL of up to {LONGEST_URL} characters, such as "
            "https://example.com/done",
        )
    if URL(url).user is not None or URL(url).password is not None:
        raise Refused(
            422, "invalid_request", "'webhook_url' holds a password, which everybody would see"
        )
    return url


def _is_web(url: str) -> bool:
    try:
        return url.isprintable() and URL(url).scheme in ("http", "https") and bool(URL(url).host)
    except ValueError:
        return False


def only(workflow: Workflow, targets: object) -> Workflow:
    """What these nodes need, themselves included: the rest isn't executed. Without targets, or
    where one is unknown, all of it."""
    if not isinstance(targets, list) or not targets:
        return workflow
    if not all(isinstance(each, str) and each in workflow for each in targets):
        return workflow
    needed: set[str] = set()
    left = [*targets]
    while left:
        name = left.pop()
        if name in workflow and name not in needed:
            needed.add(name)
            inputs = workflow[name].get("inputs", {})
            left += [str(link[0]) for link in inputs.values() if isinstance(link, list) and link]
    return {name: node for name, node in workflow.items() if name in needed}
