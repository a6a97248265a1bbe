"""Dead letters as the board keeps them: bounded, whoever wrote them and whatever they hold."""

from __future__ import annotations

from fixtures.records import Fake

from streaming.board.letters import SHOWN_BYTES_MAX, SHOWN_CHARS_MAX, Letters
from streaming.events.dead_letter import ERRORS


def letter(value: bytes | None, key: bytes | None = b"k", **why: bytes) -> Fake:
    headers = [(f"{ERRORS}{name.replace('_', '.')}", text) for name, text in {"topic": b"t", **why}.items()]
    return Fake(key, value, list(headers))


def test_a_letter_of_another_program_is_as_small_as_ours() -> None:
    letters = Letters()
    long = b"x" * 1_000_000
    letters.take(
        [letter(bytes(range(256)) * 4000, long, exception_message=long, exception_class_name=long, stage=long)]
    )
    (found,) = letters.newest()
    assert found.size == 1_024_000
    assert len(found.message) == SHOWN_CHARS_MAX
    assert len(found.reason) <= SHOWN_CHARS_MAX
    assert len(found.key) == SHOWN_BYTES_MAX + 1
    assert found.value.startswith("\x00\x01")
    assert len(found.value) <= 4 * SHOWN_BYTES_MAX + 1
    found.value.encode()  # a page can show it


def test_a_record_without_a_value_is_told_and_one_without_reasons_is_no_letter() -> None:
    letters = Letters()
    letters.take([letter(None, None, stage=b"empty"), Fake(b"k", b"v")])
    (found,) = letters.newest("unknown")  # "" is any
    assert letters.counts() == {"unknown": 1}
    assert (found.key, found.value, found.size) == ("null", "null", 0)
