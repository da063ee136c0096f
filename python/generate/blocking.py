"""The blocking twin: what is in `_async` without `async` and `await`. `wire.py` exists in both by hand."""

from __future__ import annotations

import re

WORDS = [
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\b__a(enter|exit|iter)__\b", r"__\1__"),
    (r"\b__anext__\b", "__next__"),
    (r"\bStopAsyncIteration\b", "StopIteration"),
    (r"\bvmrun\.aio\b", "vmrun"),
    (r"\b_async\b", "_sync"),
]


def blocking(text: str, source: str) -> str:
    for pattern, replacement in WORDS:
        text = re.sub(pattern, replacement, text)
    if text.startswith("# Made by"):
        return text
    return f"# Made by python/generate from {source}: change that, then run `make python`.\n" + text
