"""Nodes that declare a schema; they are executed like ordinary ones."""
# ruff: noqa: N802

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar


class _Input:
    def __init__(self, type_name: str, name: str, optional: bool = False, **options: Any) -> None:
        self.type_name = type_name
        self.name = name
        self.optional = optional
        self.options = {key: value for key, value in options.items() if value is not None}


class _Output:
    def __init__(
        self, type_name: str, display_name: str | None = None, is_output_list: bool = False
    ) -> None:
        self.type_name = type_name
        self.display_name = display_name or type_name
        self.is_output_list = is_output_list


class _Type:
    """A type of values, with ``Input`` and ``Output`` to declare them."""

    def __init__(self, name: str) -> None:
        self.io_type = name

    def Input(self, id: str, optional: bool = False, **options: Any) -> _Input:
        return _Input(self.io_type, id, optional, **options)

    def Output(self, display_name: str | None = None, is_output_list: bool = False) -> _Output:
        return _Output(self.io_type, display_name, is_output_list)


Boolean = _Type("BOOLEAN")
Combo = _Type("COMBO")
Float = _Type("FLOAT")
Image = _Type("IMAGE")
Int = _Type("INT")
Mask = _Type("MASK")
String = _Type("STRING")


@dataclass(frozen=True)
class Schema:
    """What a node is called, takes and returns."""

    node_id: str
    display_name: str | None = None
    category: str = "sd"
    inputs: list[_Input] = field(default_factory=list)
    outputs: list[_Output] = field(default_factory=list)
    description: str = ""
    is_output_node: bool = False


class NodeOutput(dict[str, Any]):
    """The values of a node's outputs, and what the client is shown."""

    def __init__(self, *args: Any, ui: dict[str, Any] | None = None) -> None:
        super().__init__()
        if args:
            self["result"] = args
        if ui is not None:
            self["ui"] = ui


class ComfyNode:
    """A node: a class with ``define_schema`` and ``execute``."""

    FUNCTION = "execute"
    RETURN_TYPES: ClassVar[list[str]] = []
    RETURN_NAMES: ClassVar[list[str]] = []
    OUTPUT_IS_LIST: ClassVar[list[bool]] = []
    OUTPUT_NODE = False
    CATEGORY = "sd"
    DESCRIPTION = ""

    @classmethod
    def define_schema(cls) -> Schema:
        raise NotImplementedError

    @classmethod
    def GET_SCHEMA(cls) -> Schema:
        """The schema; the names that ordinary nodes have are filled in from it."""
        schema = cls.define_schema()
        cls.RETURN_TYPES = [output.type_name for output in schema.outputs]
        cls.RETURN_NAMES = [output.display_name for output in schema.outputs]
        cls.OUTPUT_IS_LIST = [output.is_output_list for output in schema.outputs]
        cls.OUTPUT_NODE = schema.is_output_node
        cls.CATEGORY = schema.category
        cls.DESCRIPTION = schema.description
        return schema

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, Any]]:
        declared: dict[str, dict[str, Any]] = {"required": {}}
        for given in cls.define_schema().inputs:
            category = declared.setdefault("optional" if given.optional else "required", {})
            category[given.name] = (given.type_name, given.options)
        return declared
