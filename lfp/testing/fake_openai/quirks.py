"""Ways in which real servers and models depart from the protocol: what they say, refuse or leave out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

Quirk = Literal[
    "fence", "preface", "thinking", "thinking_unopened", "thinking_unclosed", "reasoning_only", "reasoning_besides",
    "content_parts", "extra_key", "wrapper", "list", "string", "spaces", "byte_order_mark", "floats", "percent",
    "percent_number", "no_usage", "empty_usage", "null_usage", "refuses_json_schema", "refuses_response_format",
    "refuses_with_500", "ignores_response_format", "refuses_max_tokens", "one_at_a_time", "html_502", "rate_limit_ms",
    "redirect", "endless", "no_models",
]  # fmt: skip
"""What a server may do; see `ANSWERS` and `refuse_format` here, and the server for the rest."""

_REFUSED = {
    "refuses_json_schema": ("json_schema", 400, "This response_format type is unavailable now"),
    "refuses_response_format": ("", 422, "response_format: Extra inputs are not permitted"),
    "refuses_with_500": ("json_schema", 500, "{'loc': ('body', 'response_format', 'type'), 'input': 'json_schema'}"),
}
_THOUGHT = "The tokens look alike, { and } too."


def refuse_format(quirk: Quirk | None, sent: Mapping[str, Any]) -> tuple[int, str] | None:
    """Return the status and message by which a server refuses a field of a request; None if it takes it."""
    if quirk == "refuses_max_tokens" and "max_tokens" in sent:
        said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."
        return 400, said
    if quirk not in _REFUSED or "response_format" not in sent:
        return None
    kind, status, message = _REFUSED[quirk]
    return (status, message) if kind in ("", sent["response_format"].get("type")) else None


def _in_json(change: Callable[[dict[str, Any]], Any]) -> Callable[[str], str]:
    """Return a change of the content from one of the value in it."""
    return lambda content: json.dumps(change(json.loads(content)), ensure_ascii=False)


def _change_confidence(confidence: Any) -> Callable[[str], str]:
    return _in_json(lambda value: value | {"confidence": confidence} if "confidence" in value else value)


ANSWERS: Mapping[str, Callable[[str], str]] = {
    "fence": lambda content: f"```json\n{json.dumps(json.loads(content), indent=2)}\n```",
    "preface": lambda content: f"Here is the JSON you asked for:\n\n{content}\n\nLet me know if {{more}} is needed.",
    "thinking": lambda content: f"<think>\n{_THOUGHT}\n</think>\n\n{content}",
    "thinking_unopened": lambda content: f"{_THOUGHT}\n</think>\n\n{content}",
    "thinking_unclosed": lambda content: f"<think>\n{_THOUGHT} So: {content}",
    "extra_key": _in_json(lambda value: value | {"explanation": "because"}),
    "wrapper": _in_json(lambda value: {"result": value}),
    "list": _in_json(lambda value: [value]),
    "string": json.dumps,
    "spaces": lambda content: f"\n\n  {content}\n",
    "byte_order_mark": lambda content: f"\ufeff{content}",
    "floats": _in_json(
        lambda value: {
            name: [float(number) for number in part] if isinstance(part, list) else part for name, part in value.items()
        }
    ),
    "percent": _change_confidence("95%"),
    "percent_number": _change_confidence(95),
}
"""The changed content of a message."""


def change_completion(quirk: Quirk | None, completion: dict[str, Any]) -> None:
    """Change a right completion in place, as the quirk says."""
    message = completion["choices"][0]["message"]
    content = message["content"]
    match quirk:
        case "reasoning_only":
            message |= {"content": "", "reasoning_content": content}
        case "reasoning_besides":
            message["reasoning"] = _THOUGHT
        case "content_parts":
            thought = {"type": "thinking", "thinking": [{"type": "text", "text": _THOUGHT}]}
            message["content"] = [thought, {"type": "text", "text": content}]
        case "no_usage":
            del completion["usage"]
        case "empty_usage":
            completion["usage"] = {}
        case "null_usage":
            completion["usage"]["completion_tokens"] = None
        case str() if quirk in ANSWERS:
            message["content"] = ANSWERS[quirk](content)
        case _:
            pass
