"""Text of a script -> the tree of `syntax`. A hand-written descent: the dialect is small and every refusal has a place.

The dialect is OpenMLDB 0.9's, with the older spellings the tutorial uses. What is not in the grammar below is a
syntax error; what parses but cannot be run is refused by `plan`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from streaming.engine import syntax as s
from streaming.engine.errors import UnsupportedSQL, point
from streaming.engine.types import Type, from_name

__all__ = ["parse", "parse_select", "statement_text"]

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|--[^\n]*|\#[^\n]*|/\*.*?\*/)
  | (?P<interval>\d+[smhdSMHD]\b)
  | (?P<float>(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?[fF]?|\d+[eE][+-]?\d+[fF]?|\d+[fF]\b)
  | (?P<hex>0[xX][0-9a-fA-F]+)
  | (?P<int>\d+[lL]?)
  | (?P<quoted>`[^`]*`)
  | (?P<string>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*")
  | (?P<word>@@[A-Za-z_][\w.]*|[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)
  | (?P<symbol><=>|<>|<=|>=|!=|==|<<|>>|\|\||&&|[-+*/%&|^~!=<>(),.;?])
    """,
    re.VERBOSE | re.DOTALL,
)

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

# Words that end an expression or an alias when they stand bare.
_RESERVED = frozenset(
    """select from where group having order by limit window union as on last left right full inner cross join over
    partition rows rows_range range between and or not xor in like ilike rlike is null case when then else end div
    maxsize exclude instance_not_in_window into options escape asc desc true false""".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class _Token:
    kind: str  # interval float int quoted string word symbol end
    text: str
    at: int

    @property
    def lower(self) -> str:
        return self.text.lower()


def _tokens(script: str) -> list[_Token]:
    tokens, offset = [], 0
    while offset < len(script):
        match = _TOKEN.match(script, offset)
        if match is None:
            what = "an unclosed string" if script[offset] in "'\"`" else f"unexpected character {script[offset]!r}"
            raise point(script, offset, f"syntax error: {what}")
        if match.lastgroup != "space":
            tokens.append(_Token(str(match.lastgroup), match.group(), offset))
        offset = match.end()
    return [*tokens, _Token("end", "end of the script", len(script))]


def parse(script: str) -> list[s.Statement]:
    """The statements of `script`, which `;` separates.

    Raises:
        UnsupportedSQL: a syntax error, with its line:column and a caret.
    """
    parser = _Parser(script)
    statements: list[s.Statement] = []
    while parser.token.kind != "end":
        if not parser.accept(";"):
            statements.append(parser.statement())
            if parser.token.kind != "end":
                parser.expect(";")
    return statements


def parse_select(script: str) -> s.Select:
    """The one SELECT of `script`."""
    statements = parse(script)
    if len(statements) != 1 or not isinstance(statements[0], s.Select):
        raise point(script, 0, "expected one SELECT statement")
    return statements[0]


def statement_text(script: str, at: int) -> str:
    """The text of the statement that begins at offset `at`, without its `;` and what follows."""
    end = at
    for token in _tokens(script[at:]):
        if token.text == ";" or token.kind == "end":
            break
        end = at + token.at + len(token.text)
    return script[at:end]


class _Parser:
    def __init__(self, script: str) -> None:
        self.script = script
        self.tokens = _tokens(script)
        self.position = 0

    # -- tokens ----------------------------------------------------------------------------------------------------

    @property
    def token(self) -> _Token:
        return self.tokens[self.position]

    def peek(self, *words: str) -> bool:
        """Whether the next tokens are these (bare words or symbols)."""
        for step, word in enumerate(words):
            token = self.tokens[min(self.position + step, len(self.tokens) - 1)]
            if token.kind not in ("word", "symbol") or token.lower != word:
                return False
        return True

    def accept(self, *words: str) -> bool:
        if self.peek(*words):
            self.position += len(words)
            return True
        return False

    def expect(self, *words: str) -> None:
        for word in words:
            if not self.accept(word):
                raise self.fail(f"expected {word.upper()}")

    def fail(self, what: str, token: _Token | None = None) -> UnsupportedSQL:
        """The syntax error at `token`, or at the next one."""
        found = token or self.token
        return point(self.script, found.at, f"syntax error: {what}, found {found.text!r}")

    def refuse(self, what: str, at: int) -> UnsupportedSQL:
        """The error for a construct that is known and not supported."""
        return point(self.script, at, f"unsupported: {what}")

    def advance(self) -> _Token:
        token = self.token
        self.position += 1
        return token

    def name(self, what: str = "a name") -> str:
        token = self.token
        if token.kind == "quoted":
            self.position += 1
            return token.text[1:-1]
        if token.kind == "word" and token.lower not in _RESERVED and not token.text.startswith("@"):
            self.position += 1
            return token.text
        raise self.fail(f"expected {what}")

    def qualified(self, what: str = "a name") -> tuple[str, ...]:
        parts = [self.name(what)]
        while self.accept("."):
            parts.append(self.name(what))
        return tuple(parts)

    def integer(self, what: str) -> int:
        token = self.advance()
        if token.kind != "int":
            self.position -= 1
            raise self.fail(f"expected {what}")
        return int(token.text.rstrip("lL"))

    def text(self, what: str) -> str:
        token = self.advance()
        if token.kind != "string":
            self.position -= 1
            raise self.fail(f"expected {what} in quotes")
        return _unquote(token.text)

    # -- statements ------------------------------------------------------------------------------------------------

    def statement(self) -> s.Statement:
        at = self.token.at
        if self.peek("select") or self.peek("("):
            return self.select_statement()
        if self.accept("create", "database"):
            quiet = self.accept("if", "not", "exists")
            return s.CreateDatabase(self.name("a database"), quiet, at)
        if self.accept("use"):
            return s.Use(self.name("a database"), at)
        if self.accept("create", "table"):
            return self.create_table(at)
        if self.accept("create", "index"):
            name = self.name("an index")
            self.expect("on")
            table = self.qualified("a table")
            return s.CreateIndex(name, table, self.create_index(at), at)
        if self.accept("insert"):
            return self.insert(at)
        if self.accept("set"):
            name = self.advance().text
            if self.accept("global") or self.accept("session"):
                name = self.advance().text
            self.expect("=")
            return s.Set(name.lstrip("@").lower(), self.option_value(), at)
        if self.accept("deploy"):
            quiet = self.accept("if", "not", "exists")
            name = self.name("a deployment")
            options = self.options()
            return s.Deploy(name, self.select(), quiet, at, options)
        if self.accept("drop"):
            kind = self.token.lower
            if kind not in ("table", "database", "deployment", "index"):
                raise self.fail("expected TABLE, DATABASE, DEPLOYMENT or INDEX")
            self.advance()
            quiet = self.accept("if", "exists")
            return s.Drop(kind, self.qualified(), quiet, at)
        if self.accept("load", "data", "infile"):
            path = self.text("a path")
            self.expect("into", "table")
            table = self.qualified("a table")
            return s.LoadData(path, table, self.options(), at)
        raise self.fail("expected a statement")

    def select_statement(self) -> s.Statement:
        at = self.token.at
        select = self.select()
        if self.accept("into", "outfile"):
            return s.Outfile(select, self.text("a path"), self.options(), at)
        return select

    def create_table(self, at: int) -> s.CreateTable:
        quiet = self.accept("if", "not", "exists")
        name = self.qualified("a table")
        columns: list[s.ColumnDef] = []
        indexes: list[s.IndexDef] = []
        self.expect("(")
        while True:
            here = self.token.at
            if self.peek("index", "("):
                self.advance()
                indexes.append(self.create_index(here))
            else:
                columns.append(self.column(here))
            if not self.accept(","):
                break
        self.expect(")")
        self.options()  # partitions, replicas, storage: one process has none of these
        return s.CreateTable(name, tuple(columns), tuple(indexes), quiet, at)

    def column(self, at: int) -> s.ColumnDef:
        name = self.name("a column")
        token = self.advance()
        kind = from_name(token.text)
        if kind is None:
            raise point(self.script, token.at, f"unsupported: column type {token.text!r}")
        nullable, default = True, None
        while True:
            if self.accept("not", "null"):
                nullable = False
            elif self.accept("null"):
                nullable = True
            elif self.accept("default"):
                value = self.unary()
                if not isinstance(value, s.Literal):
                    raise self.refuse("a default that is not a constant", value.at)
                default = value
            else:
                return s.ColumnDef(name, kind, nullable, default, at)

    def create_index(self, at: int) -> s.IndexDef:
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
                return s.IndexDef(key, None, (0, 0), kind, at)
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
        return s.IndexDef(key, ts, (absolute, latest), kind, at)

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
            return int(token.text[:-1]) * _UNITS_MS[token.text[-1].lower()], 0
        if token.kind == "int":
            return int(token.text) * 60_000, int(token.text)
        raise self.fail("expected a time to live", token)

    def insert(self, at: int) -> s.Insert:
        ignore = self.accept("or", "ignore")
        self.expect("into")
        table = self.qualified("a table")
        columns: list[str] = []
        if self.accept("("):
            columns.append(self.name("a column"))
            while self.accept(","):
                columns.append(self.name("a column"))
            self.expect(")")
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
                return s.Insert(table, tuple(columns), tuple(rows), ignore, at)

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

    def option_value(self) -> object:
        token = self.advance()
        if token.kind == "string":
            return _unquote(token.text)
        if token.kind == "int":
            return int(token.text)
        if token.kind == "interval":
            return token.text
        if token.kind == "word":
            return {"true": True, "false": False}.get(token.lower, token.text)
        raise self.fail("expected a value", token)

    # -- SELECT ----------------------------------------------------------------------------------------------------

    def select(self) -> s.Select:
        if self.accept("("):
            inner = self.select()
            self.expect(")")
            return inner
        at = self.token.at
        self.expect("select")
        if self.peek("distinct"):
            raise self.refuse("SELECT DISTINCT", self.token.at)
        items = [self.item()]
        while self.accept(","):
            items.append(self.item())
        source: s.Source | None = None
        joins: list[s.Join] = []
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
        windows: list[tuple[str, s.Window]] = []
        if self.accept("window"):
            while True:
                name = self.name("a window")
                self.expect("as")
                windows.append((name, self.window()))
                if not self.accept(","):
                    break
        limit = self.integer("a number of rows") if self.accept("limit") else None
        if self.peek("union"):
            raise self.refuse("UNION of queries", self.token.at)
        return s.Select(tuple(items), source, tuple(joins), where, tuple(windows), limit, at)

    def item(self) -> s.Item:
        at = self.token.at
        if self.accept("*"):
            return s.Item(s.Star(None, at), None, "*", at)
        expr = self.expression()
        text = self.script[at : self.tokens[self.position - 1].at + len(self.tokens[self.position - 1].text)]
        alias = None
        if (
            self.accept("as")
            or self.token.kind == "quoted"
            or (self.token.kind == "word" and self.token.lower not in _RESERVED)
        ):
            alias = self.name("an alias")
        return s.Item(expr, alias, text, at)

    def source(self) -> s.Source:
        at = self.token.at
        if self.accept("("):
            select = self.select()
            self.expect(")")
            return s.SubSelect(select, self.alias(), at)
        return s.TableRef(self.qualified("a table"), self.alias(), at)

    def alias(self) -> str | None:
        if self.accept("as"):
            return self.name("an alias")
        if self.token.kind == "quoted" or (self.token.kind == "word" and self.token.lower not in _RESERVED):
            return self.name("an alias")
        return None

    def join(self) -> s.Join | None:
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
        order, descending = None, False
        if self.accept("order", "by"):
            order = s.Name(self.qualified("a column"), self.token.at)
            descending = self.accept("desc")
            if not descending:
                self.accept("asc")
        self.expect("on")
        return s.Join(kind, source, order, descending, self.expression(), at)

    def window(self) -> s.Window:
        at = self.token.at
        self.expect("(")
        unions: list[s.Source] = []
        if self.accept("union"):
            unions.append(self.source())
            while self.accept(","):
                unions.append(self.source())
        partition: list[s.Name] = []
        if self.accept("partition", "by"):
            while True:
                here = self.token.at
                partition.append(s.Name(self.qualified("a column"), here))
                if not self.accept(","):
                    break
        order, descending = None, False
        if self.accept("order", "by"):
            here = self.token.at
            order = s.Name(self.qualified("a column"), here)
            descending = self.accept("desc")
            if not descending:
                self.accept("asc")
            if self.peek(","):
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
        end = self.bound(rows, near=True)
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
        frame = s.Frame(rows, start, end, maxsize)
        return s.Window(tuple(unions), tuple(partition), order, descending, frame, instance, row, time, at)

    def bound(self, rows: bool, near: bool) -> int | None:
        token = self.advance()
        if token.lower == "unbounded":
            self.expect("preceding")
            return None
        if token.lower == "current":
            self.expect("row")
            return 0
        if token.kind == "interval" and not rows:
            distance = int(token.text[:-1]) * _UNITS_MS[token.text[-1].lower()]
        elif token.kind == "int":
            distance = int(token.text.rstrip("lL"))
        else:
            raise self.fail("expected a bound of a frame", token)
        opened = self.accept("open")
        if self.peek("following"):
            if distance or opened:
                raise self.refuse("FOLLOWING: a request sees no later rows", self.token.at)
            self.advance()
            return 0
        self.expect("preceding")
        return distance + (1 if near else -1) * opened

    # -- expressions, loosest first --------------------------------------------------------------------------------

    def expression(self) -> s.Expr:
        left = self.exclusive_or()
        while self.peek("or"):
            at = self.advance().at
            left = s.Binary("or", left, self.exclusive_or(), at)
        return left

    def exclusive_or(self) -> s.Expr:
        left = self.conjunction()
        while self.peek("xor"):
            at = self.advance().at
            left = s.Binary("xor", left, self.conjunction(), at)
        return left

    def conjunction(self) -> s.Expr:
        left = self.negation()
        while self.peek("and") or self.peek("&&"):
            at = self.advance().at
            left = s.Binary("and", left, self.negation(), at)
        return left

    def negation(self) -> s.Expr:
        if self.peek("not"):
            at = self.advance().at
            return s.Unary("not", self.negation(), at)
        return self.comparison()

    def comparison(self) -> s.Expr:
        left = self.binary(0)
        while True:
            token = self.token
            if token.kind == "symbol" and token.text in ("=", "==", "!=", "<>", "<", "<=", ">", ">="):
                self.advance()
                operator = {"==": "=", "<>": "!="}.get(token.text, token.text)
                left = s.Binary(operator, left, self.binary(0), token.at)
                continue
            if self.accept("is"):
                negated = self.accept("not")
                self.expect("null")
                left = s.IsNull(left, negated, token.at)
                continue
            start = self.position
            negated = self.accept("not")
            if self.accept("in"):
                left = self.membership(left, negated, token.at)
            elif self.accept("between"):
                low = self.binary(0)
                self.expect("and")
                left = s.Between(left, low, self.binary(0), negated, token.at)
            elif self.peek("like") or self.peek("ilike") or self.peek("rlike"):
                kind = self.advance().lower
                pattern = self.binary(0)
                escape = self.binary(0) if self.accept("escape") else None
                left = s.Like(kind, left, pattern, escape, negated, token.at)
            else:
                self.position = start
                return left

    def membership(self, left: s.Expr, negated: bool, at: int) -> s.Expr:
        self.expect("(")
        if self.peek("select"):
            raise self.refuse("IN (SELECT …)", self.token.at)
        choices = [self.expression()]
        while self.accept(","):
            choices.append(self.expression())
        self.expect(")")
        return s.In(left, tuple(choices), negated, at)

    _LEVELS = (("|",), ("^",), ("&",), ("<<", ">>"), ("+", "-"), ("*", "/", "div", "%", "mod"))

    def binary(self, level: int) -> s.Expr:
        if level == len(self._LEVELS):
            return self.unary()
        left = self.binary(level + 1)
        while any(self.peek(symbol) for symbol in self._LEVELS[level]):
            token = self.advance()
            operator = "%" if token.lower == "mod" else token.lower
            left = s.Binary(operator, left, self.binary(level + 1), token.at)
        return left

    def unary(self) -> s.Expr:
        token = self.token
        if token.kind == "symbol" and token.text in ("-", "+", "~", "!"):
            self.advance()
            operand = self.unary()
            if token.text == "+":
                return operand
            if token.text == "-" and isinstance(operand, s.Literal) and operand.type in (
                Type.INT, Type.BIGINT, Type.FLOAT, Type.DOUBLE
            ):  # fmt: skip
                return _number(operand, token.at)
            return s.Unary("not" if token.text == "!" else token.text, operand, token.at)
        expr = self.primary()
        while self.peek("over"):
            at = self.advance().at
            window = self.window() if self.peek("(") else self.name("a window")
            expr = s.Over(expr, window, at)
        return expr

    def primary(self) -> s.Expr:
        token = self.token
        if token.kind in ("int", "float", "string", "hex"):
            self.advance()
            return self.literal(token)
        if token.kind == "interval":
            raise self.fail("a number with a unit stands only in a window frame")
        if self.accept("("):
            if self.peek("select"):
                raise self.refuse("a scalar sub-query", self.token.at)
            inner = self.expression()
            self.expect(")")
            return inner
        if self.accept("*"):
            return s.Star(None, token.at)
        if token.kind == "symbol" and token.text == "?":
            raise self.refuse("a parameter `?`", token.at)
        for word, value in (("null", None), ("true", True), ("false", False)):
            if self.accept(word):
                return s.Literal(value, Type.NULL if value is None else Type.BOOL, token.at)
        if self.accept("case"):
            return self.case(token.at)
        if self.peek("cast", "("):
            self.position += 2
            operand = self.expression()
            self.expect("as")
            kind = self.type_name()
            self.expect(")")
            return s.Cast(operand, kind, token.at)
        if token.kind == "word" and self.tokens[self.position + 1].text == "(":
            return self.call(token)
        parts = [self.name("an expression")]
        while self.accept("."):
            if self.accept("*"):
                return s.Star(parts[-1], token.at)
            parts.append(self.name("a column"))
        return s.Name(tuple(parts), token.at)

    def call(self, token: _Token) -> s.Expr:
        self.position += 2
        arguments: list[s.Expr] = []
        if not self.accept(")"):
            arguments.append(self.expression())
            while self.accept(","):
                arguments.append(self.expression())
            self.expect(")")
        kind = from_name(token.text)
        if kind is not None:
            if len(arguments) != 1:
                raise point(self.script, token.at, f"{token.text} takes one argument")
            return s.Cast(arguments[0], kind, token.at)
        return s.Call(token.lower, tuple(arguments), token.at)

    def type_name(self) -> Type:
        token = self.advance()
        kind = from_name(token.text)
        if kind is None:
            raise point(self.script, token.at, f"unsupported: type {token.text!r}")
        return kind

    def case(self, at: int) -> s.Expr:
        operand = None if self.peek("when") else self.expression()
        whens = []
        while self.accept("when"):
            condition = self.expression()
            self.expect("then")
            whens.append((condition, self.expression()))
        if not whens:
            raise self.fail("expected WHEN")
        otherwise = self.expression() if self.accept("else") else None
        self.expect("end")
        return s.Case(operand, tuple(whens), otherwise, at)

    def literal(self, token: _Token) -> s.Literal:
        if token.kind == "string":
            return s.Literal(_unquote(token.text), Type.STRING, token.at)
        if token.kind == "float":
            if token.text[-1] in "fF":
                return s.Literal(float(token.text[:-1]), Type.FLOAT, token.at)
            return s.Literal(float(token.text), Type.DOUBLE, token.at)
        value = int(token.text, 16) if token.kind == "hex" else int(token.text.rstrip("lL"))
        if value >= 1 << 63:  # 9223372036854775808 has a place only after a minus: see _number
            if value > 1 << 63:
                raise point(self.script, token.at, f"the number {token.text} does not fit a bigint")
            return s.Literal(value, Type.BIGINT, token.at)
        small = value < 1 << 31 and token.text[-1] not in "lL"
        return s.Literal(value, Type.INT if small else Type.BIGINT, token.at)


def _number(literal: s.Literal, at: int) -> s.Literal:
    value = literal.value
    if not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is not a number")
    return s.Literal(-value, literal.type, at)


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b"}


def _unquote(text: str) -> str:
    quote, body = text[0], text[1:-1].replace(text[0] * 2, text[0])
    del quote
    # `\%` and `\_` keep the backslash: they are escapes of LIKE, not of the literal
    return re.sub(r"\\(.)", lambda m: m.group() if m[1] in "%_" else _ESCAPES.get(m[1], m[1]), body, flags=re.DOTALL)
