"""How the protocol's names and types are written in Python."""

from __future__ import annotations

import re
from keyword import iskeyword
from typing import List, Tuple

from idl import Field, Kind, Member

BUILT_IN = {"int": "int", "bool": "bool", "string": "str", "float": "float", "object": "Any"}

# The strings that are bytes (base64 on the wire).
BYTES = {
    ("Exec", "stdin"), ("Exec", "stdout"), ("Exec", "stderr"),
    ("WriteExecInput", "data"), ("WriteGuestFile", "data"), ("ReadGuestFile", "data"),
    ("ReadConsole", "data"), ("WriteConsole", "data"), ("Screenshot", "png"),
}  # fmt: skip

# The strings that are paths of this host: the protocol wants them absolute.
PATHS = {
    ("AddDisk", "file"), ("AddDisk", "allow_backing"), ("ChangeMedia", "file"), ("ChangeMedia", "allow_backing"),
    ("Save", "file"), ("Freeze", "folder"),
}  # fmt: skip

def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def parameter(name: str) -> str:
    """Not a word of Python's own, such as `from`."""
    return name + "_" if iskeyword(name) else name


def is_stream(method: Member) -> bool:
    """A method that answers more than once says so."""
    return "all it with `more`" in " ".join(method.doc)


def python_type(kind: Kind, owner: str = "", name: str = "") -> str:
    """The type of a value that comes out of a reply."""
    if (owner, name) in BYTES:
        plain = "bytes"
    elif kind.name == "enum":
        plain = "Literal[" + ", ".join(f'"{word}"' for word in kind.words) + "]"
    else:
        plain = BUILT_IN.get(kind.name, kind.name)
    if kind.array:
        plain = f"List[{plain}]"
    if kind.mapping:
        plain = f"Dict[str, {plain}]"
    return f"Optional[{plain}]" if kind.optional and plain != "Any" else plain


def accepted_type(kind: Kind, owner: str, name: str) -> str:
    """The type of an argument."""
    if (owner, name) in PATHS:
        plain = "Union[StrPath, Sequence[StrPath]]" if kind.array else "StrPath"
    elif kind.array and kind.name == "string":
        plain = "Union[str, Sequence[str]]"
    elif kind.mapping:
        plain = "Mapping[str, str]"
    else:
        return python_type(kind, owner, name)
    return f"Optional[{plain}]" if kind.optional else plain


def encoded(kind: Kind, owner: str, name: str) -> str:
    """The expression that makes JSON of an argument."""
    value = parameter(name)
    if (owner, name) in BYTES:
        return f"to_base64({value})"
    if (owner, name) in PATHS:
        return f"absolute_paths({value})" if kind.array else f"absolute_path({value})"
    if kind.array and kind.name == "string":
        return f"strings({value})"
    return f"dict({value})" if kind.mapping and not kind.optional else value


def decoded(kind: Kind, owner: str, name: str, types: Tuple[str, ...]) -> str:
    """The expression that makes a Python value of a member of a JSON object."""
    read = "optional" if kind.optional else "required"
    value = f'{read}(data, "{name}")'
    if (owner, name) in BYTES:
        return f"from_base64({value})" if not kind.optional else f"maybe({value}, from_base64)"
    if kind.name in types:
        if kind.array:
            return f"[{kind.name}.from_json(item) for item in {value} or []]" if not kind.optional else (
                f"maybe({value}, lambda items: [{kind.name}.from_json(item) for item in items])"
            )
        return f"maybe({value}, {kind.name}.from_json)" if kind.optional else f"{kind.name}.from_json({value})"
    return value


def docstring(lines: List[str], indent: str) -> str:
    text = "\n".join(line.rstrip() for line in lines).strip().replace("\\", "\\\\")
    if not text:
        return ""
    body = f"\n{indent}".join(text.split("\n"))
    body = "\n".join(line.rstrip() for line in body.split("\n"))
    end = f"\n{indent}" if "\n" in text else ""
    return f'{indent}"""{body}{end}"""\n'


def fields_doc(fields: List[Field]) -> List[str]:
    """What the comments say of single fields."""
    lines: List[str] = []
    for entry in fields:
        if entry.doc:
            lines.append(f"`{parameter(entry.name)}`: " + entry.doc[0])
            lines.extend("  " + line for line in entry.doc[1:])
    return lines
