"""Reads a Varlink interface description: just what `proto/io.vmrun.Machine.varlink` uses of the language."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import List, Optional, Tuple, Union

TOKEN = re.compile(r"\s*(?:(#[^\n]*)|(->|\[string\]|\[\]|[(),:?]|[A-Za-z][A-Za-z0-9_.]*))")


@dataclass
class Kind:
    """A type: a built-in or named one, with what is around it."""

    name: str
    optional: bool = False
    array: bool = False
    mapping: bool = False
    words: Tuple[str, ...] = ()


@dataclass
class Field:
    name: str
    kind: Kind
    doc: List[str] = field(default_factory=list)


@dataclass
class Member:
    """A `type`, `method` or `error`."""

    keyword: str
    name: str
    doc: List[str]
    # of a method: its parameters
    fields: List[Field] = field(default_factory=list)
    reply: List[Field] = field(default_factory=list)
    # of a type that is an enumeration
    words: Tuple[str, ...] = ()


class Reader:
    def __init__(self, text: str) -> None:
        self.tokens: List[str] = []
        position = 0
        while text[position:].strip():
            found = TOKEN.match(text, position)
            if found is None:
                raise SystemExit(f"not Varlink: {text[position:position + 60]!r}")
            # an empty line ends a comment that belongs to what follows
            if "\n\n" in text[position : found.start(1) if found.group(1) else found.start(2)]:
                self.tokens.append("")
            self.tokens.append(found.group(1) or found.group(2))
            position = found.end()
        self.at = 0

    def comments(self) -> List[str]:
        lines: List[str] = []
        while self.at < len(self.tokens) and (not self.tokens[self.at] or self.tokens[self.at].startswith("#")):
            token = self.tokens[self.at]
            lines = lines + [token[1:].strip() if token[1:2] != " " else token[2:]] if token else []
            self.at += 1
        return lines

    def next(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def peek(self) -> str:
        return self.tokens[self.at]

    def expect(self, token: str) -> None:
        if self.next() != token:
            raise SystemExit(f"expected {token!r} before {self.tokens[self.at:self.at + 5]}")

    def kind(self) -> Kind:
        kind = Kind("")
        while True:
            token = self.next()
            if token == "?":
                kind.optional = True
            elif token == "[]":
                kind.array = True
            elif token == "[string]":
                kind.mapping = True
            elif token == "(":
                kind.name, kind.words = "enum", self.words()
                return kind
            else:
                kind.name = token
                return kind

    def words(self) -> Tuple[str, ...]:
        words = [self.next()]
        while self.next() == ",":
            words.append(self.next())
        return tuple(words)

    def body(self) -> Union[List[Field], Tuple[str, ...]]:
        self.expect("(")
        fields: List[Field] = []
        while True:
            doc = self.comments()
            if self.peek() == ")":
                self.next()
                return fields
            name = self.next()
            if self.peek() != ":":
                # an enumeration
                self.at -= 1
                return self.words()
            self.next()
            fields.append(Field(name, self.kind(), doc))
            if self.peek() == ",":
                self.next()

    def member(self) -> Optional[Member]:
        doc = self.comments()
        if self.at == len(self.tokens):
            return None
        keyword = self.next()
        if keyword == "interface":
            self.next()
            return self.member()
        member = Member(keyword, self.next(), doc)
        body = self.body()
        if isinstance(body, tuple):
            member.words = body
        else:
            member.fields = body
        if keyword == "method":
            self.expect("->")
            reply = self.body()
            assert isinstance(reply, list)
            member.reply = reply
        return member


def members(text: str) -> List[Member]:
    reader = Reader(text)
    found = []
    while (member := reader.member()) is not None:
        found.append(member)
    return found
