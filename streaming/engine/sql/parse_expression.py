"""Expressions: tokens -> the tree of `syntax`, loosest operators first."""

from __future__ import annotations

from streaming.engine.errors import point
from streaming.engine.sql import syntax as s
from streaming.engine.sql.depth import nested
from streaming.engine.sql.tokens import Reader, Token, unquote
from streaming.engine.types import Type, from_name

__all__ = ["ExpressionParser"]


class ExpressionParser(Reader):
    """Reads expressions; what stands between OVER and its window is a SELECT's matter."""

    def window(self) -> s.Window:
        """A window in parentheses."""
        raise NotImplementedError

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
        places = []
        while self.peek("not"):
            places.append(self.advance().at)
        expr = self.comparison()
        for at in reversed(places):
            expr = s.Unary("not", expr, at)
        return expr

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
                escape = self.escape() if self.accept("escape") else None
                left = s.Like(kind, left, pattern, escape, negated, token.at)
            else:
                self.position = start
                return left

    def escape(self) -> s.Literal:
        """The character behind ESCAPE, or '' for none."""
        at = self.token.at
        text = self.text("a character")
        if len(text.encode()) > 1:
            raise self.refuse("an ESCAPE of more than one byte", at)
        return s.Literal(text, Type.STRING, at)

    @nested
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

    @nested
    def unary(self) -> s.Expr:
        token = self.token
        if token.kind == "symbol" and token.text in ("-", "+", "~", "!"):
            self.advance()
            operand = self.unary()
            if token.text == "+":
                return operand
            if (
                token.text == "-"
                and isinstance(operand, s.Literal)
                and operand.type in (Type.INT, Type.BIGINT, Type.FLOAT, Type.DOUBLE)
            ):
                return _number(operand, token.at)
            return s.Unary("not" if token.text == "!" else token.text, operand, token.at)
        expr = self.primary()
        while self.peek("over"):
            if not isinstance(expr, (s.Call, s.Cast)):
                raise self.fail("OVER stands behind a function call only")
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
        if token.kind in ("word", "quoted") and self.tokens[self.position + 1].text == "(":
            return self.call(token)
        parts = [self.name("an expression")]
        while self.accept("."):
            if self.accept("*"):
                if len(parts) > 1:
                    raise self.refuse("a database before `*`", token.at)
                return s.Star(parts[-1], token.at)
            parts.append(self.name("a column"))
        return s.Name(tuple(parts), token.at)

    def call(self, token: Token) -> s.Expr:
        self.position += 2
        arguments: list[s.Expr] = []
        if not self.accept(")"):
            arguments.append(self.expression())
            while self.accept(","):
                arguments.append(self.expression())
            self.expect(")")
        name = token.lower.strip("`")
        kind = from_name(name)
        if kind is not None:
            if len(arguments) != 1:
                raise point(self.script, token.at, f"{name} takes one argument")
            return s.Cast(arguments[0], kind, token.at)
        return s.Call(name, tuple(arguments), token.at)

    def type_name(self, what: str = "type") -> Type:
        """A type; the length of a VARCHAR(n) says nothing to OpenMLDB either."""
        token = self.advance()
        kind = from_name(token.text)
        if kind is None:
            raise point(self.script, token.at, f"unsupported: {what} {token.text!r}")
        if token.lower == "varchar" and self.accept("("):
            self.integer("a length")
            self.expect(")")
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

    def literal(self, token: Token) -> s.Literal:
        if token.kind == "string":
            return s.Literal(unquote(token.text), Type.STRING, token.at)
        if token.kind == "float":
            if token.text[-1] in "fF":
                return s.Literal(float(token.text[:-1]), Type.FLOAT, token.at)
            return s.Literal(float(token.text), Type.DOUBLE, token.at)
        if token.kind == "hex":
            raise point(self.script, token.at, f"unsupported: the hexadecimal number {token.text}")
        value = int(token.text.rstrip("lL"))
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
