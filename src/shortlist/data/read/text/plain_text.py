"""Converts text of any encoding and separator into text that Polars reads.

Polars needs UTF-8, a separator of one character and no blanks before quotes. Such a
file is read directly; any other is converted in memory.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from shortlist.data.read.log_file import LogFile, encoding_error, open_bytes
from shortlist.data.read.text.sniff import JOINED

_BLANKS = re.compile(" +")
_AROUND = re.compile(r"(?m)^ +| +(?=\r?$)")


def is_plain_utf8(file: LogFile) -> bool:
    """Whether the bytes of a text file are to be UTF-8."""
    encoding = file.format.encoding
    return encoding is None or codecs.lookup(encoding).name == "utf-8"


def plain_separator(file: LogFile) -> str:
    """The separator in the text of `plain_text`."""
    return JOINED if len(file.delimiter) > 1 else file.delimiter


def plain_text(text: str, file: LogFile) -> str:
    """Lines of a file with one character between their fields.

    Args:
        text: whole lines.
        file: where they are from.
    """
    mark, quote = file.delimiter, file.quote_char
    if len(mark) > 1:
        text = text.replace(mark, JOINED)
    if mark == " ":
        if quote and quote in text:  # blanks inside a quoted field are kept
            if text.count("\n") > 1:
                lines = text.splitlines(keepends=True)
                return "".join(plain_text(line, file) for line in lines)
            return text
        text = _AROUND.sub("", _BLANKS.sub(" ", text))
    if file.padded and quote and quote in text:
        end = re.escape(quote)
        text = re.sub(rf"{re.escape(mark)} +(?={end}(?!{end}))", mark, text)
    return text


def plain_source(file: LogFile) -> Path | bytes:
    """What Polars reads: the file, or its content in memory.

    Raises:
        LogError: the file is not of the encoding it is said to be of
            (`log-encoding`).
    """
    padded = file.padded and file.has_quotes and file.quote_char.encode() in file.head
    odd = len(file.delimiter) > 1 or file.delimiter == " " or padded
    if is_plain_utf8(file) and not odd:
        return file.path
    with open_bytes(file.path, file.compression) as stream:
        raw = bytes(stream.read())
    encoding = file.format.encoding or "utf-8"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        row = raw.count(b"\n", 0, error.start) + 1
        around = raw[max(error.start - 10, 0) : error.end + 10]
        found = f"Found the bytes {around!r}."
        raise encoding_error(file.path, around, found, row, encoding) from error
    return plain_text(text.removeprefix("\ufeff"), file).encode()
