"""Text of a script -> the tree of `syntax`. A hand-written descent: the dialect is small and every refusal has a place.

The dialect is OpenMLDB 0.9's, with the older spellings the tutorial uses. What is not in the grammar below is a
syntax error; what parses but cannot be run is refused by `plan`.
"""

from __future__ import annotations

import datetime

from streaming.engine.errors import error_at
from streaming.engine.sql import syntax
from streaming.engine.sql.depth import nested
from streaming.engine.sql.parse_select import SelectParser
from streaming.engine.sql.string_literals import unquote
from streaming.engine.sql.tokens import tokens_of

__all__ = ["parse", "parse_select", "statement_text"]


def parse(script: str) -> list[syntax.Statement]:
    """The statements of `script`, which `;` separates.

    Raises:
        UnsupportedSQL: a syntax error, with its line:column and a caret.
    """
    parser = _Parser(script)
    statements: list[syntax.Statement] = []
    while parser.token.kind != "end":
        if not parser.accept(";"):
            statements.append(parser.statement())
            parser.measure.check(statements[-1])
            if parser.token.kind != "end":
                parser.expect(";")
    return statements


def parse_select(script: str) -> syntax.Select:
    """The one SELECT of `script`."""
    statements = parse(script)
    if len(statements) != 1 or not isinstance(statements[0], syntax.Select):
        raise error_at(script, 0, "expected one SELECT statement")
    return statements[0]


def statement_text(script: str, at: int) -> str:
    """The text of the statement that begins at offset `at`, without its `;` and what follows."""
    end = at
    for token in tokens_of(script[at:]):
        if token.text == ";" or token.kind == "end":
            break
        end = at + token.at + len(token.text)
    return script[at:end]


class _Parser(SelectParser):
    def statement(self) -> syntax.Statement:
        at = self.token.at
        if self.peek("select") or self.peek("with") or self.peek("("):
            return self.select_statement()
        if self.accept("create", "database"):
            quiet = self.accept("if", "not", "exists")
            return syntax.CreateDatabase(self.name("a database"), quiet, at)
        if self.accept("use"):
            return syntax.Use(self.name("a database"), at)
        if self.accept("create", "table"):
            return self.create_table(at)
        if self.accept("create", "index"):
            name = self.name("an index")
            self.expect("on")
            table = self.qualified("a table")
            return syntax.CreateIndex(name, table, self.create_index(at), at)
        if self.accept("insert"):
            return self.insert(at)
        if self.accept("set"):
            name = self.advance().text
            if self.accept("global") or self.accept("session"):
                name = self.advance().text
            self.expect("=")
            return syntax.Set(name.lstrip("@").lower(), self.option_value(), at)
        if self.accept("deploy"):
            quiet = self.accept("if", "not", "exists")
            name = self.name("a deployment")
            options = self.options()
            return syntax.Deploy(name, self.select(), quiet, at, options)
        if self.accept("drop"):
            kind = self.token.lower
            if kind not in ("table", "database", "deployment", "index"):
                raise self.fail("expected TABLE, DATABASE, DEPLOYMENT or INDEX")
            self.advance()
            quiet = self.accept("if", "exists")
            return syntax.Drop(kind, self.qualified(), quiet, at)
        if self.accept("load", "data", "infile"):
            path = self.text("a path")
            self.expect("into", "table")
            table = self.qualified("a table")
            return syntax.LoadData(path, table, self.options(), at)
        raise self.fail("expected a statement")

    def select_statement(self) -> syntax.Statement:
        at = self.token.at
        select = self.select()
        if self.accept("into", "outfile"):
            return syntax.Outfile(select, self.text("a path"), self.options(), at)
        return select

    def create_table(self, at: int) -> syntax.CreateTable:
        quiet, known = self.accept("if", "not", "exists"), len(self.keywords)
        name = self.qualified("a table")
        columns: list[syntax.ColumnDef] = []
        indexes: list[syntax.IndexDef] = []
        self.expect("(")
        while True:
            here = self.token.at
            if self.peek("index", "("):
                self.advance()
                indexes.append(self.create_index(here))
            elif self.peek("check", "(") or self.peek("constraint"):
                raise self.refuse("CHECK of a table: it stands with a stream of an application's events.sql", here)
            else:
                columns.append(self.column(here))
            if not self.accept(",") or self.peek(")"):  # a comma may stand behind the last one
                break
        self.expect(")")
        if self.peek("with"):
            raise self.refuse("WITH of a table: streams stand in an application's events.sql", self.token.at)
        self.options()  # partitions, replicas, storage: one process has none of these
        return syntax.CreateTable(name, tuple(columns), tuple(indexes), quiet, at, tuple(self.keywords[known:]))

    def column(self, at: int) -> syntax.ColumnDef:
        name = self.name("a column")
        kind = self.type_name("column type")
        nullable, default = self.column_rules()
        return syntax.ColumnDef(name, kind, nullable, default, at)

    def create_index(self, at: int) -> syntax.IndexDef:
        key: tuple[str, ...] = ()
        ts: str | None = None
        kind, absolute, latest = "absolute", 0, 0
        self.expect("(")
        if not (self.peek("key") or self.peek("ts") or self.peek("ttl") or self.peek("ttl_type")):
            # CREATE INDEX i ON t (a, b) [OPTIONS (ts=…, ttl=…, ttl_type=…)]
            names = [self.name("a column")]
            while self.accept(","):
                names.append(self.name("a column"))
            self.expect(")")
            key = tuple(names)
            if not self.accept("options"):
                return syntax.IndexDef(key, None, (0, 0), kind, at)
            self.expect("(")
        while True:
            token = self.advance()
            field = token.lower
            self.expect("=")
            if field == "key":
                if self.accept("("):
                    names = [self.name("a column")]
                    while self.accept(","):
                        names.append(self.name("a column"))
                    self.expect(")")
                    key = tuple(names)
                else:
                    key = (self.name("a column"),)
            elif field == "ts":
                ts = self.name("a column")
            elif field == "ttl":
                absolute, latest = self.ttl()
            elif field == "ttl_type":
                kind = self.advance().lower
                if kind not in ("absolute", "latest", "absandlat", "absorlat"):
                    raise self.refuse(f"TTL_TYPE={kind}", token.at)
            else:
                raise self.refuse(f"index option {token.text}", token.at)
            if not self.accept(","):
                break
        self.expect(")")
        if kind == "latest":
            absolute = 0
        elif kind == "absolute":
            latest = 0
        return syntax.IndexDef(key, ts, (absolute, latest), kind, at)

    @nested
    def ttl(self) -> tuple[int, int]:
        """(milliseconds, rows); a bare number stands for minutes, or for rows where TTL_TYPE=latest."""
        if self.accept("("):
            first = self.ttl()[0]
            second = 0
            if self.accept(","):
                second = self.integer("a number of rows")
            self.expect(")")
            return first, second
        token = self.advance()
        if token.kind == "interval":
            return self.milliseconds(token), 0
        if token.kind == "int":
            return self.bounded(int(token.text) * 60_000, token), int(token.text)
        raise self.fail("expected a time to live", token)

    def insert(self, at: int) -> syntax.Insert:
        ignore = self.accept("or", "ignore")
        self.expect("into")
        table = self.qualified("a table")
        columns: list[str] = []
        if self.accept("("):
            columns.append(self.name("a column"))
            while self.accept(","):
                columns.append(self.name("a column"))
            self.expect(")")
        if self.peek("select"):
            raise self.refuse("INSERT … SELECT: it stands in an application's events.sql", self.token.at)
        self.expect("values")
        rows = []
        while True:
            self.expect("(")
            row = [self.expression()]
            while self.accept(","):
                row.append(self.expression())
            self.expect(")")
            rows.append(tuple(row))
            if not self.accept(","):
                return syntax.Insert(table, tuple(columns), tuple(rows), ignore, at)

    def options(self) -> dict[str, object]:
        found: dict[str, object] = {}
        if not self.accept("options"):
            return found
        self.expect("(")
        while not self.accept(")"):
            key = self.advance().lower.strip("'\"`")
            self.expect("=")
            found[key] = self.option_value()
            self.accept(",")
        return found

    @nested
    def option_value(self) -> object:
        """A constant, or a list of such in brackets or parentheses; a span as 7d is a timedelta."""
        for opening, closing in (("[", "]"), ("(", ")")):
            if self.accept(opening):
                values: list[object] = []
                while not self.accept(closing):
                    values.append(self.option_value())
                    if not self.peek(closing):
                        self.expect(",")
                return values
        token = self.advance()
        if token.kind == "string":
            return unquote(token.text)
        if token.kind == "int":
            return int(token.text)
        if token.kind == "interval":
            return datetime.timedelta(milliseconds=self.milliseconds(token))
        if token.kind == "word":
            return {"true": True, "false": False}.get(token.lower, token.text)
        raise self.fail("expected a value", token)
