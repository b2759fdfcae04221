"""Sentences are for people: no comparison or split of one decides anything. Codes and types do."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import get_args

import pytest

from comfy_machine.host.comfyui.condition import Health, Reason
from tests.rig import PROJECT

PROSE = {"reason", "message", "advice", "why", "failure", "verdict", "symptom", "trouble", "gist"}
"""Attributes, keys and variables that hold a sentence; or a code, as `Condition.reason`."""
CODES = {*get_args(Reason), *get_args(Health)}
STATES = {"health", "state", "status"}
"""Names of what has one of a few words, some of them with a space."""
PARTS = {"startswith", "endswith", "split", "rsplit", "splitlines", "partition", "rpartition",
         "removeprefix", "removesuffix", "find", "rfind", "index", "count"}  # fmt: skip

REVIEWED = {
    # To show a sentence
    "commands/shared/run_report.py": ["failed[0].reason.partition('\\n')"],
    "generation/last_good.py": ["reason.split()"],
    "host/comfyui/own_jobs.py": [
        "str(failure).removeprefix(client.url)",
        "str(failure).removeprefix(client.url).removeprefix(':')",
    ],
    # Words of others that have no other sign: HTTP's, PM2's title, PyYAML's
    "host/downloads/download.py": ["(answer.header('Content-Range') or '').strip() == 'bytes */0'"],
    "host/pm2/pm2.py": ["title in ' '.join(running.cmdline())"],
    "spec/loader.py": [
        "'cannot start any token' in what",
        "'mapping values are not allowed' in what",
    ],
    # Only what is logged: uvicorn has no code for an answer that breaks off
    "services/gateway/home_instance.py": ["'without completing' not in said.msg"],
}
"""By file: what is found, and decides nothing, or can't be decided otherwise."""


def name(node: ast.AST) -> str:
    """The name by which a value goes: of an attribute, a variable, or a key."""
    match node:
        case ast.Attribute(attr=found) | ast.Name(id=found):
            return found
        case ast.Subscript(slice=ast.Constant(value=str(found))):
            return found
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str(found)), *_]):
            return found
        case ast.Call(func=ast.Name(id="str"), args=[inner]):
            return name(inner)
        case ast.Call(func=ast.Attribute(value=inner)):
            return name(inner)
        case ast.BoolOp(values=[inner, *_]):
            return name(inner)
    return ""


def decisions(source: str) -> Iterator[str]:
    """The code of comparisons and splits of a sentence."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Compare(left=left, ops=operators, comparators=others):
                identity = all(isinstance(each, (ast.Is, ast.IsNot)) for each in operators)
                found = not identity and compares_prose([left, *others])
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re")), args=arguments):
                found = any(name(each) in PROSE for each in arguments)
            case ast.Call(func=ast.Attribute(value=value, attr=attribute)):
                found = attribute in PARTS and name(value) in PROSE
            case _:
                found = False
        if found:
            yield ast.unparse(node)


def compares_prose(operands: list[ast.expr]) -> bool:
    """Whether a sentence is compared with a text that is no code, or with another sentence."""
    names = [name(each) for each in operands]
    prose = [each for each in names if each in PROSE]
    texts = {
        each.value
        for operand in operands
        for each in ast.walk(operand)
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value
    }.difference(names)
    if prose:
        return len(prose) > 1 or bool(texts - CODES)
    return not STATES.intersection(names) and any(" " in text for text in texts)


def test_no_comparison_or_split_of_a_sentence_decides_anything() -> None:
    top = PROJECT / "tasks"
    found = {
        str(file.relative_to(top)): sorted(decisions(file.read_text()))
        for file in top.rglob("*.py")
    }
    assert {file: codes for file, codes in found.items() if codes} == REVIEWED


@pytest.mark.parametrize(
    "code",
    [
        'verdict and "none was begun" in verdict',
        'known["reason"].split("; ")',
        "functional.reason == functional.canary.reason",
        'told.get("reason") == reason',
        'row.reason != "not started"',
        'str(failure).startswith("no GPU")',
        'condition.message.removesuffix("!")',
        're.search("died", why)',
        'text == "it hangs"',
    ],
)
def test_a_decision_by_a_sentence_is_found(code: str) -> None:
    assert list(decisions(code))


@pytest.mark.parametrize(
    "code",
    ['found.reason == "Hanging"', 'row.health == "crash loop"', 'reason == ""', 'why + "; " + why'],
)
def test_a_decision_by_a_code_is_none(code: str) -> None:
    assert not list(decisions(code))
