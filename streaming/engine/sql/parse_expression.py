"""Expressions: tokens -> the tree of `syntax`, loosest operators first."""

from __future__ import annotations

from streaming.engine.errors import error_at
from streaming.engine.sql import syntax
from streaming.engine.sql.depth import nested
from streaming.engine.sql.string_literals import unquote
from streaming.engine.sql.tokens import Token, TokenReader
from streaming.engine.types import Type, from_name

__all__ = ["ExpressionParser"]

_LEVELS = (("|",), ("^",), ("&",), ("<<", ">>"), ("+", "-"), ("*", "/", "div", "%", "mod"))
_LEVEL_OF = {operator: level for level, operators in enumerate(_LEVELS) for operator in operators}


class ExpressionParser(TokenReader):
    """Reads expressions; what stands between OVER and its window is a SELECT's matter."""

    def window(self) -> syntax.Window:
        """A window in parentheses."""
        raise NotImplementedError

    def expression(self) -> syntax.Expr:
        left = self.exclusive_or()
        while self.peek("or"):
            at = self.advance().at
            left = syntax.Binary("or", left, self.exclusive_or(), at)
        return left

    def exclusive_or(self) -> syntax.Expr:
        left = self.conjunction()
        while self.peek("xor"):
            at = self.advance().at
            left = syntax.Binary("xor", left, self.conjunction(), at)
        return left

    def conjunction(self) -> syntax.Expr:
        left = self.negation()
        while self.peek("and"):
            at = self.advance().at
            left = syntax.Binary("and", left, self.negation(), at)
        return left

    def negation(self) -> syntax.Expr:
        places = []
        while self.peek("not"):
            places.append(self.advance().at)
        expr = self.comparison()
        for at in reversed(places):
            expr = syntax.Unary("not", expr, at)
        return expr

    def comparison(self) -> syntax.Expr:
        left = self.binary(0)
        found = self.compared(left)
        if found is None:
            return left
        here = self.token
        if self.compared(found) is not None:  # as `1 = 1 = 1`, in which OpenMLDB sees no order
            raise self.fail("a comparison of a comparison stands in parentheses", here)
        return found

    def compared(self, left: syntax.Expr) -> syntax.Expr | None:
        """The comparison of `left` with what follows; None where none stands here."""
        token = self.token
        if token.kind == "symbol" and token.text in ("=", "==", "!=", "<>", "<", "<=", ">", ">="):
            self.advance()
            operator = {"==": "=", "<>": "!="}.get(token.text, token.text)
            return syntax.Binary(operator, left, self.binary(0), token.at)
        if self.accept("is"):
            negated = self.accept("not")
            self.expect("null")
            return syntax.IsNull(left, negated, token.at)
        start = self.position
        negated = self.accept("not")
        if self.accept("in"):
            return self.membership(left, negated, token.at)
        if self.accept("between"):
            low = self.binary(0)
            self.expect("and")
            return syntax.Between(left, low, self.binary(0), negated, token.at)
        if self.peek("like") or self.peek("ilike") or self.peek("rlike"):
            kind = self.advance().lower
            pattern = self.binary(0)
            escape = self.escape() if self.accept("escape") else None
            return syntax.Like(kind, left, pattern, escape, negated, token.at)
        self.position = start
        return None

    def escape(self) -> syntax.Literal:
        """The character behind ESCAPE, or '' for none."""
        at = self.token.at
        text = self.text("a character")
        if len(text.encode()) > 1:
            raise self.refuse("an ESCAPE of more than one byte", at)
        return syntax.Literal(text, Type.STRING, at)

    @nested
    def membership(self, left: syntax.Expr, negated: bool, at: int) -> syntax.Expr:
        self.expect("(")
        if self.peek("select"):
            raise self.refuse("IN (SELECT …)", self.token.at)
        choices = [self.expression()]
        while self.accept(","):
            choices.append(self.expression())
        self.expect(")")
        return syntax.In(left, tuple(choices), negated, at)

    def binary(self, level: int) -> syntax.Expr:
        """Operators that bind as tight as `level` or tighter; those of one level from left to right."""
        left = self.unary()
        while (found := _LEVEL_OF.get(self.word, -1)) >= level:
            token = self.advance()
            operator = "%" if token.lower == "mod" else token.lower
            left = syntax.Binary(operator, left, self.binary(found + 1), token.at)
        return left

    @nested
    def unary(self) -> syntax.Expr:
        token = self.token
        if token.kind == "symbol" and token.text in ("-", "+", "~", "!"):
            self.advance()
            operand = self.unary()
            if token.text == "+":
                return operand
            if (
                token.text == "-"
                and isinstance(operand, syntax.Literal)
                and operand.type in (Type.INT, Type.BIGINT, Type.FLOAT, Type.DOUBLE)
            ):
                return _number(operand, token.at)
            if token.text == "-" and isinstance(operand, syntax.Literal) and operand.type == Type.STRING:
                raise self.refuse("a minus before a text", token.at)
            return syntax.Unary("not" if token.text == "!" else token.text, operand, token.at)
        expr = self.primary()
        while self.peek("over"):
            if not isinstance(expr, (syntax.Call, syntax.Cast)):
                raise self.fail("OVER stands behind a function call only")
            at = self.advance().at
            window = self.window() if self.peek("(") else self.name("a window")
            expr = syntax.Over(expr, window, at)
        return expr

    def primary(self) -> syntax.Expr:
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
            return syntax.Star(None, token.at)
        if token.kind == "symbol" and token.text == "?":
            raise self.refuse("a parameter `?`", token.at)
        for word, value in (("null", None), ("true", True), ("false", False)):
            if self.accept(word):
                return syntax.Literal(value, Type.NULL if value is None else Type.BOOL, token.at)
        if self.accept("case"):
            return self.case(token.at)
        if self.peek("cast", "("):
            self.position += 2
            operand = self.expression()
            self.expect("as")
            kind = self.type_name()
            self.expect(")")
            return syntax.Cast(operand, kind, token.at)
        if token.kind in ("word", "quoted") and self.tokens[self.position + 1].text == "(":
            return self.call(token)
        parts = [self.name("an expression")]
        while self.accept("."):
            if self.accept("*"):
                if len(parts) > 1:
                    raise self.refuse("a database before `*`", token.at)
                return syntax.Star(parts[-1], token.at)
            parts.append(self.name_behind_dot("a column"))
        return syntax.Name(tuple(parts), token.at)

    def call(self, token: Token) -> syntax.Expr:
        self.position += 2
        arguments: list[syntax.Expr] = []
        if not self.accept(")"):
            arguments.append(self.expression())
            while self.accept(","):
                arguments.append(self.expression())
            self.expect(")")
        name = self.called(token)
        kind = from_name(name)
        if kind is not None:
            if len(arguments) != 1:
                raise error_at(self.script, token.at, f"{name} takes one argument")
            return syntax.Cast(arguments[0], kind, token.at)
        return syntax.Call(name, tuple(arguments), token.at)

    def type_name(self, what: str = "type") -> Type:
        """A type; the length of a VARCHAR(n) says nothing to OpenMLDB either."""
        token = self.advance()
        kind = from_name(token.text)
        if kind is None:
            raise error_at(self.script, token.at, f"unsupported: {what} {token.text!r}")
        if token.lower == "varchar" and self.accept("("):
            self.integer("a length")
            self.expect(")")
        return kind

    def case(self, at: int) -> syntax.Expr:
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
        return syntax.Case(operand, tuple(whens), otherwise, at)

    def literal(self, token: Token) -> syntax.Literal:
        if token.kind == "string":
            return syntax.Literal(unquote(token.text), Type.STRING, token.at)
        if token.kind == "float":
            if token.text[-1] in "fF":
                return syntax.Literal(float(token.text[:-1]), Type.FLOAT, token.at)
            return syntax.Literal(float(token.text), Type.DOUBLE, token.at)
        if token.kind == "hex":
            raise error_at(self.script, token.at, f"unsupported: the hexadecimal number {token.text}")
        value = int(token.text.rstrip("lL"))
        if value >= 1 << 63:  # behind a minus, too: OpenMLDB reads the number before its sign
            raise error_at(self.script, token.at, f"the number {token.text} does not fit a bigint")
        small = value < 1 << 31 and token.text[-1] not in "lL"
        return syntax.Literal(value, Type.INT if small else Type.BIGINT, token.at)


def _number(literal: syntax.Literal, at: int) -> syntax.Literal:
    value = literal.value
    if not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is not a number")
    return syntax.Literal(-value, literal.type, at)
