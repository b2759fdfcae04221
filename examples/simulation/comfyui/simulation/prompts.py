"""Checks of a prompt: which outputs are executed, and what is wrong with the rest."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import nodes
from simulation.flags import SINCE_2026
from simulation.validation import Error, Prompt, Validator, error, of_exception


@dataclass
class Verdict:
    """What a prompt is worth: the outputs to execute, or the error; and errors by node."""

    outputs: list[str] = field(default_factory=list)
    error: Error | None = None
    node_errors: dict[str, Error] = field(default_factory=dict)


def _find_outputs(prompt: Prompt, wanted: list[str] | None) -> tuple[list[str], Error | None]:
    outputs = []
    for node_id, entry in prompt.items():
        node = nodes.NODE_CLASS_MAPPINGS.get(entry.get("class_type", ""))
        if node is None:
            return [], _unknown(node_id, entry)
        if getattr(node, "OUTPUT_NODE", False) is True and (wanted is None or node_id in wanted):
            outputs.append(node_id)
    return outputs, None if outputs else error("prompt_no_outputs", "Prompt has no outputs")


def _unknown(node_id: str, entry: dict[str, Any]) -> Error:
    """What is wrong with a node that has no class, or one that isn't there."""
    name, details = entry.get("class_type"), f"Node ID '#{node_id}'"
    if not SINCE_2026:
        problem = f"node {name} does not exist."
        if "class_type" not in entry:
            problem = "a node is missing the class_type property."
        return error("invalid_prompt", f"Cannot execute because {problem}", details)
    title = entry.get("_meta", {}).get("title", name)
    message = f"Node '{title}' not found. The custom node may not be installed."
    if "class_type" not in entry:
        message = (
            f"Node '{title or f'ID #{node_id}'}' has no class_type. The workflow may be corrupted"
            " or a custom node is missing."
        )
    known = {"node_id": node_id, "class_type": name, "node_title": title}
    return error("missing_node_type", message, details, **known)


def validate_prompt(prompt: Prompt, wanted: list[str] | None = None) -> Verdict:
    """Check a prompt; outputs that are wrong are left out as long as one is right."""
    outputs, problem = _find_outputs(prompt, wanted)
    if problem is not None:
        return Verdict(error=problem)
    verdict = Verdict()
    validator = Validator(prompt)
    details: list[str] = []
    for output in outputs:
        try:
            valid, reasons = validator.validate(output)
        except Exception as exception:
            kind = "exception_during_validation"
            reasons = [of_exception(kind, "Exception when validating node", exception)]
            valid = False
            validator.results[output] = (False, reasons)
        if valid:
            verdict.outputs.append(output)
            continue
        logging.error("Failed to validate prompt for output %s:", output)
        details += [f"{reason['message']}: {reason['details']}" for reason in reasons]
        _blame(verdict, validator, prompt, output)
        logging.error("Output will be ignored")
    if not verdict.outputs:
        message = "Prompt outputs failed validation"
        verdict.error = error("prompt_outputs_failed_validation", message, "\n".join(details))
    return verdict


def _blame(verdict: Verdict, validator: Validator, prompt: Prompt, output: str) -> None:
    """Name the nodes that make output fail; those after them have no error of their own."""
    for node_id, (valid, reasons) in validator.results.items():
        if valid or not reasons:
            continue
        if node_id not in verdict.node_errors:
            name = prompt[node_id]["class_type"]
            verdict.node_errors[node_id] = {
                "errors": reasons, "dependent_outputs": [], "class_type": name,
            }  # fmt: skip
            logging.error("* %s %s:", name, node_id)
            for reason in reasons:
                logging.error("  - %s: %s", reason["message"], reason["details"])
        verdict.node_errors[node_id]["dependent_outputs"].append(output)
