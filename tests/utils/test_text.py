"""Names are shown in messages without commanding the terminal."""

import pytest

from segkit.utils.text import make_printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\rb\nc\td\x7f\x9b1m", r"a\rb\nc\td\x7f\x9b1m"),
        ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),
        (b"\xff.png".decode("utf-8", "surrogateescape"), r"\xff.png"),
        ("\ud83d", r"\ud83d"),
        ("Füße 猫 👩‍🚀 C:\\new [red] :cat:", "Füße 猫 👩‍🚀 C:\\new [red] :cat:"),
    ],
)
def test_control_characters_are_escaped_and_all_others_stay(text, expected):
    shown = make_printable(text)
    assert shown == expected
    assert make_printable(shown) == shown
    shown.encode()


def test_line_ends_can_stay():
    assert make_printable("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\x1b"
