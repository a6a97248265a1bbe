"""String literals: quotes, triple quotes, raw strings and escapes, as ZetaSQL (and so OpenMLDB) reads them."""

from __future__ import annotations

import re

__all__ = ["illegal_escape", "unquote"]

_CHARACTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_CHARACTERS.update({character: character for character in "\\?'\"`"})
_ESCAPE = re.compile(
    r"""\\(?:(?P<character>[abfnrtv\\?'"`])|(?P<octal>[0-3][0-7]{2})|[xX](?P<hex>[0-9a-fA-F]{2})
    |u(?P<short>[0-9a-fA-F]{4})|U(?P<long>[0-9a-fA-F]{8}))""",
    re.VERBOSE,
)
_NEWLINE = re.compile(r"\r\n?")


def _parts(text: str) -> tuple[bool, int, str]:
    """Whether a literal is raw, where its body begins, and its body."""
    raw = text[0] in "rR"
    length = 3 if text[raw : raw + 3] in ("'''", '"""') and len(text) >= raw + 6 else 1
    return raw, raw + length, text[raw + length : -length]


def _code_point(escape: re.Match[str]) -> int:
    if escape["octal"]:
        return int(escape["octal"], 8)
    return int(escape["hex"] or escape["short"] or escape["long"], 16)


def _is_character(code_point: int) -> bool:
    return code_point <= 0x10FFFF and not 0xD800 <= code_point <= 0xDFFF


def illegal_escape(text: str) -> tuple[int, str] | None:
    """The first escape of a literal that stands for nothing: its offset in `text`, and its beginning; None: all do.

    Args:
        text: the literal with its quotes.
    """
    raw, start, body = _parts(text)
    at = -1 if raw else body.find("\\")
    while at >= 0:
        escape = _ESCAPE.match(body, at)
        if escape is None or not (escape["character"] or _is_character(_code_point(escape))):
            return start + at, body[at : at + (10 if body[at + 1 : at + 2] == "U" else 2)]
        at = body.find("\\", escape.end())
    return None


def unquote(text: str) -> str:
    """The string that a literal stands for, whose escapes are legal.

    `\\x41`, `\\101` and `\\u0041` are code points; every kind of newline is `\\n`. A NUL ends the text, as in
    OpenMLDB, whose literals are C strings.
    """
    raw, _, body = _parts(text)
    if raw:
        return _NEWLINE.sub("\n", body).partition("\0")[0]

    def character(escape: re.Match[str]) -> str:
        found = escape["character"]
        return _CHARACTERS[found] if found else chr(_code_point(escape))

    return _ESCAPE.sub(character, _NEWLINE.sub("\n", body)).partition("\0")[0]
