"""CHECKs that say something of one field alone, as rules that JSON is decoded by: nothing is computed for them later.

`name != ''`, `name IN ('a', 'b')`, and a number's `BETWEEN`, `<`, `<=`, `>`, `>=` with constants, and what AND joins of
these. A CHECK with a name of its own stays one, as its name is to stand in the dead letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from streaming.engine.plan.scope import conjuncts
from streaming.engine.sql import syntax
from streaming.engine.sql.stream_syntax import Check, StreamColumn
from streaming.engine.types import Type, is_integer

__all__ = ["FieldRule", "field_rules"]


@dataclass(frozen=True)
class FieldRule:
    """What a field must be, unless it is NULL.

    Attributes:
        length_min: characters of a text.
        choices: the texts that it may be; None: any.
        least, greatest: of a number, both included; None: as its type has them.
    """

    length_min: int = 0
    choices: tuple[str, ...] | None = None
    least: float | None = None
    greatest: float | None = None


def field_rules(columns: Sequence[StreamColumn], checks: Sequence[Check]) -> tuple[dict[str, FieldRule], list[Check]]:
    """The rules of fields that CHECKs are, by the field's name; and the CHECKs that are none."""
    kinds = {column.name: column.type for column in columns}
    rules: dict[str, FieldRule] = {}
    others: list[Check] = []
    for check in checks:
        changed: dict[str, FieldRule] | None = dict(rules)
        for part in conjuncts(check.condition) if check.name is None else ():
            found = None if changed is None else _rule(part, kinds, changed)
            changed = None if found is None or changed is None else {**changed, found[0]: found[1]}
        if check.name is not None or changed is None:
            others.append(check)
        else:
            rules = changed
    return rules, others


def _rule(expr: syntax.Expr, kinds: dict[str, Type], rules: dict[str, FieldRule]) -> tuple[str, FieldRule] | None:
    """The field that a condition is about, and its rule together with what is known of it; None: it is no rule."""
    if isinstance(expr, syntax.Between) and not expr.negated:
        low = _compared(expr.operand, ">=", expr.low, kinds, rules)
        return None if low is None else _compared(expr.operand, "<=", expr.high, kinds, {**rules, low[0]: low[1]})
    if isinstance(expr, syntax.Binary):
        return _compared(expr.left, expr.operator, expr.right, kinds, rules)
    if isinstance(expr, syntax.In) and not expr.negated and isinstance(expr.operand, syntax.Name):
        name = expr.operand.parts[-1]
        rule = rules.get(name, FieldRule())
        texts = [choice.value for choice in expr.choices if isinstance(choice, syntax.Literal)]
        choices = tuple(dict.fromkeys(text for text in texts if isinstance(text, str)))
        if kinds[name] == Type.STRING and rule == FieldRule() and len(texts) == len(expr.choices) and choices:
            return (name, replace(rule, choices=choices)) if all(isinstance(text, str) for text in texts) else None
    return None


def _compared(
    left: syntax.Expr, operator: str, right: syntax.Expr, kinds: dict[str, Type], rules: dict[str, FieldRule]
) -> tuple[str, FieldRule] | None:
    """A column compared with a constant."""
    if not isinstance(left, syntax.Name) or not isinstance(right, syntax.Literal):
        return None
    name, value = left.parts[-1], right.value
    kind, rule = kinds[name], rules.get(name, FieldRule())
    if kind == Type.STRING:
        if operator != "!=" or value != "" or rule.choices is not None:
            return None
        return name, replace(rule, length_min=1)
    # Whole numbers only with whole ones, and no float: other types meet as OpenMLDB promotes them.
    whole = is_integer(kind) and is_integer(right.type)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (whole or kind == Type.DOUBLE):
        return None
    if kind == Type.DOUBLE and (right.type not in (Type.INT, Type.DOUBLE) or operator not in ("<=", ">=")):
        return None
    if operator in (">", ">="):
        least = value + (operator == ">")
        return name, replace(rule, least=least if rule.least is None else max(rule.least, least))
    if operator in ("<", "<="):
        greatest = value - (operator == "<")
        return name, replace(rule, greatest=greatest if rule.greatest is None else min(rule.greatest, greatest))
    return None
