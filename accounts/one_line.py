"""Names, and other texts of one line, as people type them: they are shown in mails, logs, documents and lists. Pure."""

import unicodedata

# Controls, and separators of lines and paragraphs: with them a name writes lines of its own into what shows it.
LINE_BREAKING = ("Cc", "Zl", "Zp")
# They turn round what follows them, so that it reads otherwise than it is. Marks of direction alone turn nothing.
TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def is_one_line(text: str) -> bool:
    """Return whether the text is shown as it is, on one line."""
    if text.isascii():
        return text.isprintable()
    return not any(char in TURNING or unicodedata.category(char) in LINE_BREAKING for char in text)
