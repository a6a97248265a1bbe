"""Text of an application's `events.sql` -> the tree of `stream_syntax`.

A stream is a CREATE TABLE with WITH (…) behind it, as Flink and ksqlDB write it; its records become rows by INSERT INTO
… SELECT. Types and expressions are OpenMLDB's. `parse` refuses both statements: OpenMLDB does not know them.
"""

from __future__ import annotations

from streaming.engine.errors import error_at
from streaming.engine.sql.parse_select import SelectParser
from streaming.engine.sql.stream_syntax import (
    Check,
    CreateStream,
    EventStatement,
    InsertSelect,
    StreamColumn,
    StreamOption,
)
from streaming.engine.sql.string_literals import unquote
from streaming.engine.types import Type, from_name

__all__ = ["parse_events"]


def parse_events(script: str) -> list[EventStatement]:
    """The statements of `script`, which `;` separates.

    Raises:
        UnsupportedSQL: a syntax error, or a statement of another kind, with its line:column and a caret.
    """
    parser = _Parser(script)
    statements: list[EventStatement] = []
    while parser.token.kind != "end":
        if not parser.accept(";"):
            statements.append(parser.statement())
            parser.measure.check(statements[-1])
            if parser.token.kind != "end":
                parser.expect(";")
    return statements


class _Parser(SelectParser):
    def statement(self) -> EventStatement:
        at = self.token.at
        if self.accept("create", "table"):
            return self.stream(at)
        if self.accept("insert"):
            return self.insert(at)
        raise self.fail("expected CREATE TABLE … WITH or INSERT INTO … SELECT")

    # -- CREATE TABLE ----------------------------------------------------------------------------------------------

    def stream(self, at: int) -> CreateStream:
        name = self.name("a stream")
        columns: list[StreamColumn] = []
        checks: list[Check] = []
        self.expect("(")
        while True:
            here = self.token.at
            if self.is_check():
                label = self.name("a constraint") if self.accept("constraint") else None
                checks.append(self.check(label, here))
            elif self.peek("index", "("):
                raise self.refuse("an index of a stream: its records are rows of a table only by INSERT", here)
            else:
                columns.append(self.column(here, checks))
            if not self.accept(",") or self.peek(")"):  # a comma may stand behind the last one
                break
        self.expect(")")
        if not self.peek("with"):
            raise self.fail(f"expected WITH (topic = …) of the stream {name}; tables stand in tables.sql")
        return CreateStream(name, tuple(columns), tuple(checks), tuple(self.with_options()), at)

    def column(self, at: int, checks: list[Check]) -> StreamColumn:
        """A column; the CHECKs that stand with it go to `checks`."""
        name = self.name("a column")
        kind, length_max = self.column_type()
        nullable, default = self.column_rules()
        while self.is_check():
            checks.append(self.check(None, self.token.at))
            nullable, default = self.column_rules(nullable, default)
        return StreamColumn(name, kind, length_max, nullable, default, at)

    def is_check(self) -> bool:
        """Whether a constraint stands here, and no column of such a name."""
        behind = self.tokens[min(self.position + 1, len(self.tokens) - 1)].text
        return self.peek("constraint") or (self.peek("check") and from_name(behind) is None)

    def column_type(self) -> tuple[Type, int | None]:
        """A type, and the n of a VARCHAR(n): characters at most."""
        if self.token.lower not in ("varchar", "string") or self.tokens[self.position + 1].text != "(":
            return self.type_name("column type"), None
        self.advance()
        self.expect("(")
        at = self.token.at
        length_max = self.integer("a length")
        if length_max < 1:
            raise error_at(self.script, at, "a text of no characters")
        self.expect(")")
        return Type.STRING, length_max

    def check(self, name: str | None, at: int) -> Check:
        self.expect("check", "(")
        begin = self.token.at
        condition = self.expression()
        self.measure.check(condition)
        text = " ".join(self.script[begin : self.token.at].split())
        self.expect(")")
        return Check(name, condition, text, at)

    def with_options(self) -> list[StreamOption]:
        self.expect("with", "(")
        found: list[StreamOption] = []
        while not self.accept(")"):
            token = self.advance()
            if token.kind not in ("word", "string", "quoted"):
                raise self.fail("expected an option of the stream", token)
            name = token.lower.strip("'\"`")
            if name in {option.name for option in found}:
                raise error_at(self.script, token.at, f"option {name} is there twice")
            self.expect("=")
            found.append(StreamOption(name, self.option_value(), token.at))
            if not self.peek(")"):
                self.expect(",")
        return found

    def option_value(self) -> str | int | bool:
        token = self.advance()
        if token.kind == "string":
            return unquote(token.text)
        if token.kind == "int":
            return int(token.text.rstrip("lL"))
        if token.kind == "word" and token.lower in ("true", "false"):
            return token.lower == "true"
        raise self.fail("expected a text in quotes, a whole number, TRUE or FALSE", token)

    # -- INSERT ----------------------------------------------------------------------------------------------------

    def insert(self, at: int) -> InsertSelect:
        self.expect("into")
        table = self.qualified("a table")
        columns: list[str] = []
        if self.accept("("):
            columns.append(self.name("a column"))
            while self.accept(","):
                columns.append(self.name("a column"))
            self.expect(")")
        if not self.peek("select"):
            raise self.fail("expected SELECT … FROM a stream")
        return InsertSelect(table, tuple(columns), self.select(), at)
