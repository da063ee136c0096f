"""The flags of `vmrun qemu` as keyword arguments, from the reference that a test compares with the program."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import List

from naming import parameter
from write import header

# What is not an option of a start from Python: it is what `launch` itself does, or nothing is started.
LEFT_OUT = {
    "help", "detached", "keep", "wait", "wait-timeout", "die-with-parent", "dry-run", "verbose", "quiet", "log-format", "escape",
}  # fmt: skip

FLAG = re.compile(r"^ {2,6}(?:-\w, )?--([a-z-]+)(?:(\[=)?[ =]?<(\w+)>)?", re.MULTILINE)


@dataclass
class Flag:
    name: str
    # it takes a value; `maybe`: it may
    value: str
    repeatable: bool
    doc: str


def flags(reference: str) -> List[Flag]:
    text = reference.split("Options:\n", 1)[1].split("[EXTRA QEMU ARGS]", 1)[0]
    starts = list(FLAG.finditer(text))
    found = []
    for number, start in enumerate(starts):
        end = starts[number + 1].start() if number + 1 < len(starts) else len(text)
        lines = text[start.end() : end].split("\n")[1:]
        # a heading of a group ends it
        about = []
        for line in lines:
            if line and not line.startswith(" "):
                break
            about.append(line.strip())
        doc = " ".join(part for part in about if part)
        value = "none" if not start.group(3) else "maybe" if start.group(2) else "one"
        found.append(Flag(start.group(1), value, "repeatable" in doc, doc))
    return [flag for flag in found if flag.name not in LEFT_OUT]


def python_type(flag: Flag) -> str:
    if flag.value == "none":
        return "bool"
    if flag.value == "maybe":
        return "Union[bool, Value]"
    return "Union[Value, Sequence[Value]]" if flag.repeatable else "Value"


def keyword(flag: Flag) -> str:
    return parameter(flag.name.replace("-", "_"))


def options_module(reference: str, source: str) -> str:
    text = header(source, "The options of `launch`: the flags of `vmrun qemu`, with underscores.")
    text += "import os\nfrom typing import Sequence, TypedDict, Union\n\n"
    text += '# A path is taken as it is; a number is written out. `True` gives a flag without a value.\nValue = Union[str, int, "os.PathLike[str]"]\n\n\n'
    text += 'class Options(TypedDict, total=False):\n    """Flags of `vmrun qemu`. A list gives a flag several times."""\n\n'
    for flag in flags(reference):
        text += "".join(f"    # {line}\n" for line in wrapped(flag.doc))
        text += f"    {keyword(flag)}: {python_type(flag)}\n"
    text += "    # Arguments that are passed to QEMU unchanged.\n    qemu_args: Sequence[str]\n\n\n"
    names = "".join(f'    "{keyword(flag)}",\n' for flag in flags(reference))
    return text + "NAMES = frozenset((\n" + names + '    "qemu_args",\n))\n'


def wrapped(text: str) -> List[str]:
    import textwrap

    return textwrap.wrap(text, 110)
