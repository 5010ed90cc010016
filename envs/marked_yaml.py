"""Plain data from YAML that a person wrote, with the line of every key, so that errors can name it.

Refused is what YAML allows and nobody means: keys that stand twice or are no names, aliases and merge keys,
tags that construct objects, values that could make a small file a large or endless one.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

from envs.scenario_limits import MAX_MAP_SIZE, ScenarioError

_MAX_SCALAR = MAX_MAP_SIZE
"""Characters of one key or value in a file: the longest is a row of terrain."""


class Marked(dict[str, Any]):
    """A YAML mapping that remembers the line of each key."""

    def __init__(self, items: Mapping[Any, Any], lines: Mapping[str, int], line: int) -> None:
        super().__init__(items)
        self.lines, self.line = lines, line


def _refusal(message: str, mark: yaml.Mark) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, message, mark)


class _MarkedLoader(yaml.SafeLoader):
    """Plain data with the lines of keys. Refuses what could make a small file a large or endless one."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise _refusal(
                f"alias *{event.anchor}: write the value out, aliases are refused", event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode) and len(node.value) > _MAX_SCALAR:
            raise _refusal(f"a value of {len(node.value)} characters; at most {_MAX_SCALAR}", node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError):  # what PyYAML lets through of a misfit like !!int x
            raise _refusal(f"{node.value!r} does not fit its type {node.tag}", node.start_mark) from None


def _construct(loader: _MarkedLoader, node: yaml.MappingNode) -> Marked:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag != yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG:
            what = repr(key.value[:_MAX_SCALAR]) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise _refusal(f"{what} cannot be a key; keys are names", key.start_mark)
        if key.value in lines:
            raise _refusal(f"key {key.value[:_MAX_SCALAR]!r} stands twice", key.start_mark)
        lines[key.value] = key.start_mark.line + 1
    return Marked(loader.construct_mapping(node, deep=True), lines, node.start_mark.line + 1)


_MarkedLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct)


@dataclass
class Reader:
    """Takes marked mappings apart; every refusal names file and line."""

    file: str

    def fail(self, line: int, message: str) -> NoReturn:
        raise ScenarioError(f"{self.file}:{line}: {message}")

    def document(self, data: bytes) -> Any:
        """The file as plain data, mappings marked."""
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            self.fail(data.count(b"\n", 0, error.start) + 1, f"not UTF-8: {error.reason}")
        try:
            return yaml.load(text, _MarkedLoader)  # a SafeLoader: plain data only
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            self.fail(line, f"not valid YAML: {error.problem}")
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self.fail(line, f"not valid YAML: character {chr(error.character)!r} is not allowed")
        except (yaml.YAMLError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else error
            self.fail(1, f"not valid YAML: {reason}")

    def mapping(self, value: Any, line: int, what: str, known: tuple[str, ...] | None) -> Marked:
        if not isinstance(value, Marked):
            self.fail(line, f"{what} must be a mapping, not {value!r}")
        for key in value if known is not None else ():
            if key not in (known or ()):
                near = difflib.get_close_matches(key, known or (), n=1, cutoff=0.4)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known or ())}"
                self.fail(value.lines[key], f"unknown key {key!r} in {what}; {hint}")
        return value

    def get(self, mapping: Marked, key: str, what: str) -> tuple[Any, int]:
        if key not in mapping:
            self.fail(mapping.line, f"{what} has no {key!r}")
        return mapping[key], mapping.lines[key]

    def line_of(self, root: Marked, where: tuple[str | int, ...]) -> int:
        """The line of the value that the keys ``where`` lead to, or of the last one on the way there."""
        value: Any = root
        line = root.line
        for key in where:
            if isinstance(value, Marked) and key in value:
                value, line = value[str(key)], value.lines[str(key)]
            elif isinstance(value, list) and isinstance(key, int) and key < len(value):
                value = value[key]
                line = value.line if isinstance(value, Marked) else line
        return line
