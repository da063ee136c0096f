"""Writes the generated modules: types, errors, methods and the options of a start."""

from __future__ import annotations

import re
from typing import Dict, List, Tuple

from idl import Field, Member
from naming import (
    accepted_type, decoded, docstring, encoded, fields_doc, is_stream, parameter, python_type, snake,
)  # fmt: skip

MADE = "# Made by python/generate from {source}: change that, then run `make python`.\n"


def header(source: str, doc: str) -> str:
    return MADE.format(source=source) + f'"""{doc}"""\n\nfrom __future__ import annotations\n\n'


def is_record(member: Member) -> bool:
    return member.keyword == "type" and not member.words


def reply_name(method: Member) -> str:
    """The type of a method's result."""
    if is_stream(method) or len(method.reply) > 1:
        return method.name + "Reply"
    if not method.reply:
        return "None"
    return python_type(method.reply[0].kind, method.name, method.reply[0].name)


def dataclass(name: str, member: Member, fields: List[Field], types: Tuple[str, ...], doc: List[str]) -> str:
    owner = member.name
    text = f"@dataclass(frozen=True)\nclass {name}:\n"
    told = fields_doc(fields)
    text += docstring(doc + ([""] if doc and told else []) + told, "    ")
    text += "\n" if "\"\"\"" in text else ""
    for entry in fields:
        text += f"    {parameter(entry.name)}: {python_type(entry.kind, owner, entry.name)}\n"
    text += f"\n    @classmethod\n    def from_json(cls, data: Dict[str, Any]) -> {name}:\n        return cls(\n"
    for entry in fields:
        text += f"            {parameter(entry.name)}={decoded(entry.kind, owner, entry.name, types)},\n"
    return text + "        )\n\n\n"


def types_module(members: List[Member], source: str) -> str:
    types = tuple(member.name for member in members if is_record(member))
    text = header(source, "The records of the protocol. Fields that this version does not know are left out.")
    text += "from dataclasses import dataclass\nfrom typing import Any, Dict, List, Literal, Optional\n\n"
    text += "from ._json import from_base64, maybe, optional, required\n\n"
    names = []
    for member in members:
        if member.keyword == "type" and member.words:
            # a supervisor that is newer may send other words
            text += "".join(f"# {line}\n" for line in member.doc)
            text += f"{member.name} = Literal[" + ", ".join(f'"{word}"' for word in member.words) + "]\n\n\n"
            names.append(member.name)
        elif member.keyword == "type":
            text += dataclass(member.name, member, member.fields, types, member.doc)
            names.append(member.name)
        elif member.keyword == "method" and (is_stream(member) or len(member.reply) > 1):
            kind = "One of the replies" if is_stream(member) else "The reply"
            text += dataclass(reply_name(member), member, member.reply, types, [f"{kind} of `{snake(member.name)}`."])
            names.append(reply_name(member))
    return text + "__all__ = [\n" + "".join(f'    "{name}",\n' for name in sorted(names)) + "]\n"


def exit_codes(table: str) -> Dict[str, int]:
    """From the table of errors in docs/protocol.md: with which code `vmrun ctl` ends."""
    codes: Dict[str, int] = {}
    for row in re.findall(r"^\| (`[A-Z].*?) \|.*\| (\d+) \|$", table, re.MULTILINE):
        codes.update({name: int(row[1]) for name in re.findall(r"`(\w+)`", row[0])})
    return codes


def errors_module(members: List[Member], source: str, codes: Dict[str, int]) -> str:
    types = tuple(member.name for member in members if is_record(member))
    text = header(source, "The errors of the protocol, each a class of its own.")
    text += "from typing import Any, Dict, Optional, Type\n\nfrom ._error import Error\nfrom ._json import maybe, optional, required\n"
    text += "from .types import Outcome\n\n\n"
    names = []
    for member in members:
        if member.keyword != "error":
            continue
        names.append(member.name)
        text += f"class {member.name}(Error):\n" + docstring(member.doc + fields_doc(member.fields), "    ")
        text += f"\n    code = {codes[member.name]}\n"
        own = [entry for entry in member.fields if entry.name not in ("message", "hint")]
        if own:
            text += "\n    def __init__(self, message: str, hint: Optional[str] = None, data: Optional[Dict[str, Any]] = None) -> None:\n"
            text += "        super().__init__(message, hint)\n        data = data or {}\n"
        for entry in own:
            # an error is told even if a part of it is missing
            value = decoded(entry.kind, member.name, entry.name, types).replace("required(", "optional(")
            kind = python_type(entry.kind)
            kind = kind if kind.startswith("Optional") else f"Optional[{kind}]"
            text += f"        self.{parameter(entry.name)}: {kind} = {value}\n"
        if own:
            text += "\n    @classmethod\n    def from_reply(cls, message: str, hint: Optional[str], data: Dict[str, Any]) -> Error:\n"
            text += "        return cls(message, hint, data)\n"
        text += "\n\n"
    text = text.replace(", required\n", "\n")
    text += "BY_NAME: Dict[str, Type[Error]] = {\n" + "".join(f'    "{name}": {name},\n' for name in names) + "}\n\n"
    return text + "__all__ = [\n" + "".join(f'    "{name}",\n' for name in names) + "]\n"


def method(member: Member) -> str:
    stream = is_stream(member)
    required = [entry for entry in member.fields if not entry.kind.optional]
    optional = [entry for entry in member.fields if entry.kind.optional]
    parts = ["self"] + [f"{parameter(e.name)}: {accepted_type(e.kind, member.name, e.name)}" for e in required]
    if optional:
        parts.append("*")
        parts += [f"{parameter(e.name)}: {accepted_type(e.kind, member.name, e.name)} = None" for e in optional]
    result = f"Stream[{reply_name(member)}]" if stream else reply_name(member)
    name = snake(member.name) + ("_stream" if stream else "")
    text = f"    {'' if stream else 'async '}def {name}(\n        " + ",\n        ".join(parts) + f",\n    ) -> {result}:\n"
    told = fields_doc(member.fields)
    doc = member.doc + ([""] if member.doc and told else []) + told
    text += docstring(doc or [f"Calls `{member.name}`."], "        ")
    arguments = "".join(
        f'            "{e.name}": {encoded(e.kind, member.name, e.name)},\n' for e in member.fields
    )
    given = "{\n" + arguments + "        }" if arguments else "{}"
    if stream:
        return text + f'        return self._stream("{member.name}", {given}, {reply_name(member)}.from_json)\n\n'
    call = f'await self._call("{member.name}", {given})'
    if not member.reply:
        return text + f"        {call}\n\n"
    text += f"        data = {call}\n"
    if len(member.reply) > 1:
        return text + f"        return {reply_name(member)}.from_json(data)\n\n"
    entry = member.reply[0]
    value = decoded(entry.kind, member.name, entry.name, tuple(_records))
    # what is built in is taken as it is
    if value.startswith(("optional(", "required(")) and reply_name(member) != "Any":
        text += f"        result: {reply_name(member)} = {value}\n        return result\n\n"
    else:
        text += f"        return {value}\n\n"
    return text


_records: List[str] = []


def methods_module(members: List[Member], source: str) -> str:
    _records[:] = [member.name for member in members if is_record(member)]
    text = header(source, "The methods of the protocol. Those with many replies are called `..._stream`.")
    body = "".join(method(member) for member in members if member.keyword == "method")
    used = sorted(
        name
        for name in set(re.findall(r"\b[A-Z]\w+\b", re.sub(r'""".*?"""', "", body, flags=re.DOTALL)))
        if name in _records or name.endswith("Reply")
    )
    helpers = ["StrPath", "absolute_path", "absolute_paths", "from_base64", "maybe", "optional", "required", "strings", "to_base64"]
    code = re.sub(r'""".*?"""', "", body, flags=re.DOTALL)
    helpers = [name for name in helpers if re.search(rf"\b{name}\b", code)]
    typing = [n for n in ("Any", "Dict", "List", "Literal", "Mapping", "Optional", "Sequence", "Union") if re.search(rf"\b{n}\b", code)]
    text += f"from typing import {', '.join(typing)}\n\nfrom .._json import (\n"
    text += "".join(f"    {name},\n" for name in helpers) + ")\nfrom ..types import (\n"
    text += "".join(f"    {name},\n" for name in used) + ")\nfrom .connection import Caller, Stream\n\n"
    text += "# A failing test shows the line that called, not ours.\n__tracebackhide__ = True\n\n\n"
    text += 'class Methods(Caller):\n    """Every method of the protocol."""\n\n' + body
    return text.rstrip("\n") + "\n"
