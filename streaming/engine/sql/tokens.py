"""The tokens of a script, and a reader that steps through them: what every part of the parser is built on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from streaming.engine.errors import UnsupportedSQL, error_at
from streaming.engine.sql.depth import TreeMeasure
from streaming.engine.sql.string_literals import illegal_escape, unquote

__all__ = ["KEYWORDS", "RESERVED", "UNITS_MS", "Token", "TokenReader", "tokens_of"]

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|--[^\n]*|\#[^\n]*|/\*.*?\*/)
  | (?P<interval>\d+[smhdSMHD]\b)
  | (?P<float>(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?[fF]?|\d+[eE][+-]?\d+[fF]?|\d+[fF]\b)
  | (?P<hex>0[xX][0-9a-fA-F]+)
  | (?P<int>\d+[lL]?)
  | (?P<quoted>`[^`]+`)
  | (?P<string>[rR]?(?:'{3}(?:[^\\]|\\.)*?'{3}|"{3}(?:[^\\]|\\.)*?"{3}|'(?:[^'\\\r\n]|\\.)*'|"(?:[^"\\\r\n]|\\.)*"))
  | (?P<word>@@[A-Za-z_][\w.]*|[A-Za-z_\u0080-\uffff](?:(?!\s)[\w\u0080-\uffff])*)
  | (?P<symbol><=>|<>|<=|>=|!=|==|<<|>>|\|\||[-+*/%&|^~!=<>(),.;?\[\]])
    """,
    re.VERBOSE | re.DOTALL,
)

_COUNT_MAX = 86_400_000 * 365 * 10_000  # as milliseconds: ten thousand years
UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

# Words that end an expression or an alias when they stand bare.
RESERVED = frozenset(
    """select from where group having order by limit window union as on last left right full inner cross join over
    partition rows rows_range range between and or not xor in like ilike rlike is null case when then else end div
    maxsize exclude instance_not_in_window into options escape asc desc true false""".split()  # noqa: SIM905
)

# Words that OpenMLDB's parser takes for no name unless they stand in backquotes or behind a dot, and this one does.
KEYWORDS = frozenset(
    """all any array assert_rows_modified at cast collate config contains create cube current default define distinct
    enum except exists extract fetch following for grouping groups hash if ignore index intersect interval lateral
    lookup merge mod natural new no nulls of open outer preceding proto recursive respect rollup set some struct
    tablesample to treat unbounded unnest using with within""".split()  # noqa: SIM905
)
# What it takes for no function, either.
_NO_FUNCTION = (KEYWORDS | RESERVED).difference(
    ("all", "at", "distinct", "grouping", "if", "left", "maxsize", "mod", "options", "right", "struct")
)


@dataclass(frozen=True)
class Token:
    """A piece of the script: its kind, its text as written, its offset."""

    kind: str  # interval float int quoted string word symbol end
    text: str
    at: int

    @property
    def lower(self) -> str:
        """The text in lower case."""
        return self.text.lower()


def tokens_of(script: str) -> list[Token]:
    """The tokens of `script`, without spaces and comments, and one of kind `end` behind them.

    Raises:
        UnsupportedSQL: a character or an escape that no token has, with its place.
    """
    tokens, offset = [], 0
    while offset < len(script):
        match = _TOKEN.match(script, offset)
        if match is None:
            what = "an unclosed string" if script[offset] in "'\"`" else f"unexpected character {script[offset]!r}"
            what = "an empty name" if script.startswith("``", offset) else what
            raise error_at(script, offset, f"syntax error: {what}")
        illegal = illegal_escape(match.group()) if match.lastgroup == "string" else None
        if illegal is not None:
            raise error_at(script, offset + illegal[0], f"syntax error: illegal escape {illegal[1]}")
        if match.lastgroup != "space":
            tokens.append(Token(str(match.lastgroup), match.group(), offset))
        offset = match.end()
    return [*tokens, Token("end", "end of the script", len(script))]


class TokenReader:
    """Steps through the tokens of a script; every error that it makes has a place."""

    def __init__(self, script: str) -> None:
        self.script = script
        self.tokens = tokens_of(script)
        # of each token, its text in lower case where it is a bare word or a symbol; else ''
        self._words = tuple(token.lower if token.kind in ("word", "symbol") else "" for token in self.tokens)
        self.position = 0
        self.nesting = 0  # of rules in themselves, see `depth`
        self.measure = TreeMeasure(script)
        self.keywords: list[tuple[int, str]] = []  # bare names that OpenMLDB reads as none: offset and word

    # -- tokens ----------------------------------------------------------------------------------------------------

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    @property
    def word(self) -> str:
        """The next token in lower case, where it is a bare word or a symbol; else ''."""
        return self._words[self.position]

    def peek(self, *words: str) -> bool:
        """Whether the next tokens are these (bare words or symbols)."""
        return self._words[self.position : self.position + len(words)] == words

    def accept(self, *words: str) -> bool:
        if self.peek(*words):
            self.position += len(words)
            return True
        return False

    def expect(self, *words: str) -> None:
        for word in words:
            if not self.accept(word):
                raise self.fail(f"expected {word.upper()}")

    def fail(self, what: str, token: Token | None = None) -> UnsupportedSQL:
        """The syntax error at `token`, or at the next one."""
        found = token or self.token
        return error_at(self.script, found.at, f"syntax error: {what}, found {found.text!r}")

    def refuse(self, what: str, at: int) -> UnsupportedSQL:
        """The error for a construct that is known and not supported."""
        return error_at(self.script, at, f"unsupported: {what}")

    def advance(self) -> Token:
        token = self.token
        self.position += 1
        return token

    def name(self, what: str = "a name") -> str:
        token = self.token
        if token.kind == "quoted":
            self.position += 1
            return token.text[1:-1]
        if token.kind == "word" and token.lower not in RESERVED and not token.text.startswith("@"):
            self.position += 1
            if token.lower in KEYWORDS or not token.text.isascii():
                self.keywords.append((token.at, token.text))
            return token.text
        raise self.fail(f"expected {what}")

    def name_behind_dot(self, what: str) -> str:
        """A name that may be any word, as OpenMLDB reads it there."""
        if self.token.kind == "word" and not self.token.text.startswith("@"):
            return self.advance().text
        return self.name(what)

    def called(self, token: Token) -> str:
        """The name of the function that `token` calls, in lower case."""
        if token.kind == "word" and token.lower in _NO_FUNCTION:
            self.keywords.append((token.at, token.text))
        return token.lower.strip("`")

    def qualified(self, what: str = "a name") -> tuple[str, ...]:
        parts = [self.name(what)]
        while self.accept("."):
            parts.append(self.name_behind_dot(what))
        return tuple(parts)

    def integer(self, what: str) -> int:
        token = self.advance()
        if token.kind != "int":
            self.position -= 1
            raise self.fail(f"expected {what}")
        return self.bounded(int(token.text.rstrip("lL")), token)

    def milliseconds(self, token: Token) -> int:
        """How long an interval, as 5d, is."""
        return self.bounded(int(token.text[:-1]) * UNITS_MS[token.text[-1].lower()], token)

    def bounded(self, number: int, token: Token) -> int:
        """A number that the engine can count to; a time before or behind another by it is one, too."""
        if number > _COUNT_MAX:
            raise error_at(self.script, token.at, f"{token.text} is too much: at most {_COUNT_MAX:,}")
        return number

    def text(self, what: str) -> str:
        token = self.advance()
        if token.kind != "string":
            self.position -= 1
            raise self.fail(f"expected {what} in quotes")
        return unquote(token.text)
