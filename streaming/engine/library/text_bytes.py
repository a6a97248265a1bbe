"""Text that was cut in the middle of a letter, as OpenMLDB cuts it: by bytes.

In Python such a text is a str whose stray bytes are lone surrogates, so that they come together again where the pieces
are joined.
"""

from __future__ import annotations

__all__ = ["text_bytes"]


def text_bytes(text: str) -> bytes:
    """The bytes of a text."""
    return text.encode("utf-8", "surrogateescape")
