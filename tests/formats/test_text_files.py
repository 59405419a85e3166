import json

import pytest

from iou_balanced.formats.text_files import read_json, read_lines, read_xml

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_lines(tmp_path, encoding):
    path = tmp_path / "train.txt"
    path.write_bytes("Grün\r\n\r\nb c\n".encode(encoding))
    assert read_lines(path) == ["Grün", "", "b c"]


def test_lines_in_an_encoding_that_is_not_declared(tmp_path):
    path = tmp_path / "train.txt"
    path.write_bytes("Grün\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"train.txt is not utf-8 text .*at byte 2.*UTF-8"):
        read_lines(path)


@pytest.mark.parametrize("encoding", [*ENCODINGS, "utf-16-le", "utf-32-be"])
def test_json(tmp_path, encoding):
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps({"Grün": 1}, ensure_ascii=False).encode(encoding))
    assert read_json(path) == {"Grün": 1}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1', "a.json is not JSON: .*line 1"),
        (b"", "a.json is not JSON"),
        (b"[" * 100_000, "a.json is not an annotation file: .*nested too deep"),
        ('{"a": "ü"}'.encode("latin-1"), "a.json is not utf-8 text"),
    ],
)
def test_what_is_no_json(tmp_path, data, message):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_json(path)


XML = '<?xml version="1.0" encoding="{}"?>\n<annotation><name>{}</name></annotation>'


@pytest.mark.parametrize(
    ("declared", "encoding", "name"),
    [
        ("UTF-8", "utf-8", "Grün"),
        ("utf-16", "utf-16", "Grün"),
        ("latin-1", "latin-1", "Grün"),
        ("windows-1252", "cp1252", "Grün€"),
        ("gb2312", "gb2312", "猫"),
        ("big5", "big5", "貓"),
        ("euc-kr", "euc-kr", "고양이"),
        ("shift_jis", "shift_jis", "ねこ"),
        ("ANSI", "ascii", "cat"),  # of no known meaning, and all characters are plain
        ("klingon", "ascii", "cat"),
    ],
)
def test_xml(tmp_path, declared, encoding, name):
    path = tmp_path / "a.xml"
    path.write_bytes(XML.format(declared, name).encode(encoding))
    assert read_xml(path).findtext("name") == name


def test_xml_without_a_declaration(tmp_path):
    path = tmp_path / "a.xml"
    path.write_bytes("<annotation><name>Grün</name></annotation>".encode("utf-8-sig"))
    assert read_xml(path).findtext("name") == "Grün"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<annotation><obj", r"^not XML \(unclosed token"),
        (b"", "^not XML"),
        (XML.format("klingon", "Grün").encode("latin-1"), "'klingon', which is not known"),
        (XML.format("gb2312", "Grün").encode("latin-1"), "not in the encoding 'gb2312'"),
        ("<a>Grün</a>".encode("latin-1"), "^not XML"),
    ],
)
def test_what_is_no_xml(tmp_path, data, message):
    path = tmp_path / "a.xml"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_xml(path)
