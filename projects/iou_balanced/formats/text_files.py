"""Text files in whatever encoding they declare."""

import codecs
import json
import os
import re
from pathlib import Path
from xml.etree import ElementTree

__all__ = ["read_json", "read_lines", "read_xml"]

# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._:-]+)["'][^>]*\?>""")
_DECLARATION = re.compile(r"^\s*<\?xml.*?\?>", re.DOTALL)


def read_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a text file without their ends: UTF-8, or what its byte-order mark says.

    Args:
        path: of the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is in another encoding; names the file and the byte.
    """
    text = _decode(Path(path).read_bytes(), path)
    if "\0" in text:
        raise ValueError(f"{path} is in UTF-16 without a byte-order mark: save it as UTF-8")
    return text.splitlines()


def read_json(path: str | os.PathLike):
    """What a JSON file holds, in UTF-8, or UTF-16 or UTF-32 with or without a byte-order mark.

    Args:
        path: of the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON; names the file and the place.
    """
    try:
        text = _decode(Path(path).read_bytes(), path, json.detect_encoding)
        return json.loads(text)
    except json.JSONDecodeError as e:
        raise ValueError(f"{path} is not JSON: {e}") from e
    except ValueError as e:  # a number of thousands of digits, or `_decode`'s
        raise ValueError(str(e) if str(path) in str(e) else f"{path}: {e}") from e
    except RecursionError as e:
        raise ValueError(f"{path} is not an annotation file: its lists are nested too deep") from e


def read_xml(path: str | os.PathLike) -> ElementTree.Element:
    """The root of an XML file, in any encoding that Python knows.

    Args:
        path: of the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not XML, declares an encoding that is not known, or entities, which can
            grow without bounds; without the file's name, so that the caller can put it where it
            belongs.
    """
    data = Path(path).read_bytes()
    if b"<!ENTITY" in data.replace(b"\0", b""):  # also where a character has several bytes
        raise ValueError("declares entities, which no annotation needs: write the text out")
    try:
        return ElementTree.fromstring(data)
    except ElementTree.ParseError as e:
        # expat knows few encodings, and raises errors of several kinds for the others.
        error: Exception = e
    except (ValueError, LookupError) as e:
        error = e
    declared = _DECLARED.match(data)
    if declared is None:
        raise ValueError(f"not XML ({error})") from error
    name = declared.group(1).decode("ascii")
    try:
        codec = codecs.lookup(name).name
    except LookupError as e:
        if not data.isascii():
            raise ValueError(
                f"declares the encoding {name!r}, which is not known: save it as UTF-8"
            ) from e
        codec = "ascii"
    try:
        text = data.decode(codec)
    except (UnicodeDecodeError, LookupError) as e:
        raise ValueError(f"is not in the encoding {name!r} that it declares ({e})") from e
    try:
        return ElementTree.fromstring(_DECLARATION.sub("", text, count=1))
    except (ElementTree.ParseError, ValueError) as e:
        raise ValueError(f"not XML ({e})") from e


def _decode(data: bytes, path, detect=lambda data: "utf-8") -> str:
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    encoding = encoding or detect(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as e:
        raise ValueError(
            f"{path} is not {encoding} text ({e.reason} at byte {e.start}): save it as UTF-8"
        ) from e
