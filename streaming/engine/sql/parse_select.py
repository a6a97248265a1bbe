"""SELECT: its sources, joins and windows."""

from __future__ import annotations

from dataclasses import replace

from streaming.engine.errors import error_at
from streaming.engine.sql import syntax
from streaming.engine.sql.column_names import default_name
from streaming.engine.sql.depth import nested
from streaming.engine.sql.parse_expression import ExpressionParser
from streaming.engine.sql.tokens import RESERVED

__all__ = ["SelectParser"]


class SelectParser(ExpressionParser):
    """Reads a SELECT with all that is in it."""

    def column_rules(
        self, nullable: bool = True, default: syntax.Literal | None = None
    ) -> tuple[bool, syntax.Literal | None]:
        """NULL, NOT NULL and DEFAULT behind the type of a column, over what was said of it before: the last counts."""
        while True:
            if self.accept("not", "null"):
                nullable = False
            elif self.accept("null"):
                nullable = True
            elif self.accept("default"):
                value = self.unary()
                if not isinstance(value, syntax.Literal):
                    raise self.refuse("a default that is not a constant", value.at)
                default = value
            else:
                return nullable, default

    def __init__(self, script: str) -> None:
        super().__init__(script)
        self.common: dict[str, syntax.Select] = {}  # what WITH has named, where this part of the script may use it

    @nested
    def select(self, united: bool = False) -> syntax.Select:
        """A SELECT; `united`: a UNION with others may follow."""
        if self.accept("("):
            inner = self.select()
            self.expect(")")
            return inner
        outside, known = self.common, len(self.keywords)
        if self.accept("with"):
            self.common = dict(outside)
            while True:
                name = self.name("a name")
                self.expect("as", "(")
                select = self.select()  # sees the ones before it, and none of its own name
                self.expect(")")
                self.common[name] = select
                if not self.accept(","):
                    break
        try:
            body = self.body()
        finally:
            self.common = outside
        if self.peek("union") and not united:
            raise self.refuse("UNION of queries", self.token.at)
        return replace(body, keywords=tuple(self.keywords[known:]))

    def body(self) -> syntax.Select:
        at = self.token.at
        self.expect("select")
        distinct = self.accept("distinct")
        items = [self.item()]
        while self.accept(",") and not (self.token.kind == "end" or any(map(self.peek, ("from", ")", ";")))):
            items.append(self.item())
        source: syntax.Source | None = None
        joins: list[syntax.Join] = []
        if self.accept("from"):
            source = self.source()
            if self.peek(","):
                raise self.refuse("a comma join", self.token.at)
            while (join := self.join()) is not None:
                joins.append(join)
        where = self.expression() if self.accept("where") else None
        for word in ("group", "having", "order"):
            if self.peek(word):
                raise self.refuse(f"{word.upper()} BY" if word != "having" else "HAVING", self.token.at)
        windows: list[tuple[str, syntax.Window]] = []
        if self.accept("window"):
            while True:
                here = self.token.at
                name = self.name("a window")
                if name in dict(windows):
                    raise error_at(self.script, here, f"window {name} is there twice")
                self.expect("as")
                windows.append((name, self.window()))
                if not self.accept(","):
                    break
        limit = self.integer("a number of rows") if self.accept("limit") else None
        return syntax.Select(tuple(items), source, tuple(joins), where, tuple(windows), limit, at, distinct)

    def item(self) -> syntax.Item:
        at = self.token.at
        if self.accept("*"):
            return syntax.Item(syntax.Star(None, at), None, "*", at)
        expr = self.expression()
        self.measure.check(expr)  # before its name is made of it
        alias = None
        if (
            self.accept("as")
            or self.token.kind == "quoted"
            or (self.token.kind == "word" and self.token.lower not in RESERVED)
        ):
            alias = self.name("an alias")
        return syntax.Item(expr, alias, default_name(expr), at)

    @nested
    def source(self) -> syntax.Source:
        at = self.token.at
        if self.accept("("):
            select, more = self.select(united=True), []
            while self.peek("union"):
                here = self.advance().at
                if not self.accept("all"):
                    raise self.refuse("UNION without ALL", here)
                more.append(self.select(united=True))
            self.expect(")")
            return syntax.SubSelect(select, self.alias(), at, tuple(more))
        name = self.qualified("a table")
        common = self.common.get(name[0]) if len(name) == 1 else None
        if common is not None:
            return syntax.SubSelect(common, self.alias() or name[0], at)
        return syntax.TableRef(name, self.alias(), at)

    def alias(self) -> str | None:
        if self.accept("as"):
            return self.name("an alias")
        if self.token.kind == "quoted" or (self.token.kind == "word" and self.token.lower not in RESERVED):
            return self.name("an alias")
        return None

    def join(self) -> syntax.Join | None:
        at = self.token.at
        for kind in ("right", "full", "inner", "cross"):
            if self.peek(kind):
                raise self.refuse(f"{kind.upper()} JOIN", at)
        if self.peek("join"):
            raise self.refuse("JOIN (only LAST JOIN)", at)
        if self.accept("last"):
            kind = "last"
        elif self.accept("left"):
            self.accept("outer")
            kind = "left"
        else:
            return None
        self.expect("join")
        source = self.source()
        order, descending = self.order()
        self.expect("on")
        return syntax.Join(kind, source, order, descending, self.expression(), at)

    def order(self) -> tuple[syntax.Name | None, bool]:
        """ORDER BY a column, if it stands here, and whether it is descending."""
        if not self.accept("order", "by"):
            return None, False
        column = self.column_name()
        descending = self.accept("desc")
        if not descending:
            self.accept("asc")
        return column, descending

    @nested
    def column_name(self) -> syntax.Name:
        """The name of a column, in parentheses or not."""
        at = self.token.at
        if self.accept("("):
            inner = self.column_name()
            self.expect(")")
            return inner
        return syntax.Name(self.qualified("a column"), at)

    def window(self) -> syntax.Window:
        at = self.token.at
        self.expect("(")
        unions: list[syntax.Source] = []
        if self.accept("union"):
            unions.append(self.source())
            while self.accept(","):
                unions.append(self.source())
        partition: list[syntax.Name] = []
        if self.accept("partition", "by"):
            while True:
                partition.append(self.column_name())
                if not self.accept(","):
                    break
        order, descending = self.order()
        if order is not None and self.peek(","):
            raise self.refuse("ORDER BY several columns in a window", self.token.at)
        here = self.token.at
        if self.accept("rows"):
            rows = True
        elif self.accept("rows_range"):
            rows = False
        else:
            raise self.fail("expected ROWS or ROWS_RANGE")
        self.expect("between")
        start = self.bound(rows, near=False)
        self.expect("and")
        following = self.following(rows)
        end = 0 if following else self.bound(rows, near=True)
        if end is None or (start is not None and start < end):
            raise self.refuse("a frame whose end lies before its start", here)
        maxsize, instance, row, time = 0, False, False, False
        if self.accept("maxsize"):
            maxsize = self.integer("a number of rows")
            if rows or maxsize == 0:
                raise self.refuse("MAXSIZE of a ROWS frame" if rows else "MAXSIZE 0", here)
        while True:
            if self.accept("instance_not_in_window"):
                instance = True
            elif self.accept("exclude", "current_row"):
                row = True
            elif self.accept("exclude", "current_time"):
                time = True
            else:
                break
        self.expect(")")
        frame = syntax.Frame(rows, start, end, maxsize, following)
        return syntax.Window(tuple(unions), tuple(partition), order, descending, frame, instance, row, time, at)

    def following(self, rows: bool) -> bool:
        """Passes by a bound behind the request's row, if it stands here: what it would add is not there yet."""
        start, token = self.position, self.advance()
        open_ended = token.lower == "unbounded" or (
            token.kind in ("int", *(() if rows else ("interval",))) and token.text.rstrip("lLsSmMhHdD").strip("0") != ""
        )
        if open_ended and (self.accept("following") or self.accept("open", "following")):
            return True
        self.position = start
        return False

    def bound(self, rows: bool, near: bool) -> int | None:
        """The distance back from the request; None: UNBOUNDED."""
        if near and self.accept("-"):  # it ends at the request's row, as OpenMLDB takes it
            token = self.advance()
            if token.kind not in ("int", *(() if rows else ("interval",))):
                raise self.fail("expected a bound of a frame", token)
            self.accept("open")
            self.expect("preceding")
            return 0
        token = self.advance()
        if token.lower == "unbounded":
            self.expect("preceding")
            return None
        if token.lower == "current":
            self.expect("row")
            return 0
        if token.kind == "interval" and not rows:
            distance = self.milliseconds(token)
        elif token.kind == "int":
            distance = self.bounded(int(token.text.rstrip("lL")), token)
        else:
            raise self.fail("expected a bound of a frame", token)
        opened = self.accept("open")
        if self.peek("following"):
            if distance or opened:
                raise self.refuse(
                    "a frame that begins behind the request" if not near else "0 OPEN FOLLOWING", self.token.at
                )
            self.advance()
            return 0
        self.expect("preceding")
        return distance + (1 if near else -1) * opened
