"""Function calls: how tools are told to the model, and how `<tool_call>{...}</tool_call>` is read out of its text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import RequestError
from .events import ToolCall, ToolCallFailed

OPEN, CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call."""

    name: str
    description: str
    parameters: Mapping[str, Any]  # JSON Schema of the arguments, an object
    run: Callable[..., Any] | None = None  # called with the arguments by name; None: the host answers the event


class Toolbox:
    """The tools of one conversation.

    Raises:
        RequestError: two tools of one name, a schema that is none, or jsonschema is not installed.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        self.tools = {tool.name: tool for tool in tools}
        if len(self.tools) != len(tools):
            raise RequestError(f"tools {', '.join(tool.name for tool in tools)} do not have a name each")
        self._validators = {tool.name: _validator(tool) for tool in tools}

    def describe(self) -> str:
        """What the system prompt says of the tools; empty where there is none."""
        if not self.tools:
            return ""
        lines = [
            json.dumps({"type": "function", "function": {"name": t.name, "description": t.description,
                                                         "parameters": dict(t.parameters)}}, ensure_ascii=False)
            for t in self.tools.values()
        ]  # fmt: skip
        return (
            "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
            "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
            + "\n".join(lines)
            + "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
            f'{OPEN}{CLOSE} XML tags:\n{OPEN}\n{{"name": <function-name>, "arguments": <args-json-object>}}\n{CLOSE}'
        )

    def read(self, text: str, call_id: str, turn: int) -> ToolCall | ToolCallFailed:
        """What stands between the marks, as a call that can be run or as the reason why not."""
        try:
            raw = json.loads(text)
        except ValueError as error:
            return ToolCallFailed(f"the call is no JSON: {error}", text, turn)
        if not isinstance(raw, dict) or set(raw) != {"name", "arguments"} or not isinstance(raw["arguments"], dict):
            return ToolCallFailed('the call is not {"name": ..., "arguments": {...}}', text, turn)
        if not isinstance(raw["name"], str) or raw["name"] not in self.tools:
            declared = ", ".join(self.tools) or "none"
            return ToolCallFailed(f"there is no tool {raw['name']!r}; declared: {declared}", text, turn)
        try:
            fault = next(iter(self._validators[raw["name"]].iter_errors(raw["arguments"])), None)
        except Exception as error:  # a reference that leads nowhere or in circles, a pattern that is none
            return ToolCallFailed(f"the parameters of {raw['name']} cannot be checked: {error}", text, turn)
        if fault is not None:
            return ToolCallFailed(f"arguments of {raw['name']}: {fault.message}", text, turn)
        return ToolCall(call_id, raw["name"], raw["arguments"], turn)

    def run(self, call: ToolCall) -> Any:
        """The tool's result; what it raises becomes {"error": ...}, which the model is told."""
        run = self.tools[call.name].run
        assert run is not None
        try:
            return run(**call.arguments)
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}"}


def _validator(tool: Tool) -> Any:
    try:
        import jsonschema
        import referencing
    except ModuleNotFoundError:
        raise RequestError("jsonschema is not installed; tools need: pip install 'facrt[live]'") from None
    kind = jsonschema.Draft202012Validator
    try:
        kind.check_schema(dict(tool.parameters))
    except jsonschema.SchemaError as error:
        raise RequestError(f"the parameters of tool {tool.name!r} are no JSON Schema: {error.message}") from None
    return kind(dict(tool.parameters), registry=referencing.Registry())  # an empty one: nothing is fetched


def response_text(results: Sequence[Any]) -> str:
    """The user message that carries the results of calls, in their order."""
    parts = (json.dumps(result, ensure_ascii=False, default=str) for result in results)
    return "\n".join(f"<tool_response>\n{part}\n</tool_response>" for part in parts)


class CallReader:
    """Takes an answer's text apart into words and calls, as it comes."""

    def __init__(self) -> None:
        self._text = ""
        self._inside = False

    def feed(self, text: str) -> Iterator[tuple[bool, str]]:
        """(False, words) and (True, what stands between the marks of a call), as soon as either is sure."""
        self._text += text
        while (at := self._text.find(CLOSE if self._inside else OPEN)) >= 0:
            before, self._text = self._text[:at], self._text[at + len(CLOSE if self._inside else OPEN) :]
            if self._inside or before:
                yield self._inside, before
            self._inside = not self._inside
        if not self._inside:
            sure = len(self._text) - _overlap(self._text, OPEN)
            if sure:
                yield False, self._text[:sure]
            self._text = self._text[sure:]

    def finish(self) -> tuple[bool, str]:
        """What is left: words, or (True, text) of a call that was never closed."""
        inside, text = self._inside, self._text
        self._inside, self._text = False, ""
        return inside, text


def _overlap(text: str, mark: str) -> int:
    """How many characters at the end of the text may begin the mark."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if mark.startswith(text[-n:])), 0)
