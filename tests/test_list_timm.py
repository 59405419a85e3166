"""tools/list_timm.py: its list covers timm, says what users meet, and gives the page in docs."""

import dataclasses
import faulthandler
import os
import signal
import sys
from pathlib import Path

import pytest
import timm

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import list_timm
    finally:
        sys.path.remove(str(ROOT / "tools"))
    return list_timm


@pytest.fixture(scope="module")
def records(tool):
    return {r.name: r for r in tool.read()}


def test_the_list_is_all_of_timm(tool, records):
    assert sorted(records) == sorted(timm.list_models())
    assert {r.timm for r in records.values()} == {timm.__version__}
    assert [r.name for r in tool.read()] == sorted(records)


def test_each_record_is_whole(records):
    for r in records.values():
        assert r.outcome in ("works", "needs argument", "refused", "not run"), r
        usable = r.outcome in ("works", "needs argument")
        assert bool(r.strides) == bool(r.size_divisibility) == usable, r
        assert bool(r.argument) == (r.outcome == "needs argument"), r
        assert bool(r.reason) == (not usable) and "\n" not in r.reason, r
        if usable:
            coarsest = int(r.strides.split()[-1])
            assert int(r.size_divisibility) % coarsest == 0, r


def test_the_page_is_that_of_the_list(tool, records):
    page = tool.timm_markdown.page(list(records.values()), large=tool.LARGE)
    assert tool.MARKDOWN.read_text("utf-8") == page


# Fast ones of all outcomes and arguments.
@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenetv3_small_050",
        "mobilevitv2_050",
        "hrnet_w18_small",
        "vit_tiny_patch16_224",
        "crossvit_tiny_240",
        "swinv2_cr_tiny_ns_224",
        "test_maxvit",
        "levit_128s",
        "legacy_xception",
    ],
)
def test_a_record_is_what_a_user_meets(tool, records, name):
    assert tool.try_model(name) == records[name]


def record(tool, name, **kwargs):
    return tool.Record(name=name, family="f", outcome="works", **kwargs)


def test_a_run_goes_on_where_it_stopped(tool, tmp_path, monkeypatch, capsys):
    file, tried = tmp_path / "list.csv", []

    def try_apart(name):
        tried.append(name)
        if name == "b" and tried.count("b") == 1:
            raise KeyboardInterrupt
        return record(tool, name, reason='a "quoted", one')

    monkeypatch.setattr(tool, "try_apart", try_apart)
    tool.write([record(tool, "gone")], file)
    with pytest.raises(KeyboardInterrupt):
        tool.run(file, ["c", "b", "a"])
    assert [r.name for r in tool.read(file)] == ["c"]
    tool.run(file, ["c", "b", "a"])
    assert tried == ["c", "b", "b", "a"]
    assert tool.read(file) == [record(tool, n, reason='a "quoted", one') for n in "abc"]
    assert "3/3 a: works" in capsys.readouterr().out
    assert tool.read(tmp_path / "none.csv") == []


def test_check_says_what_differs(tool, monkeypatch):
    listed = [record(tool, n, strides="4") for n in "abcd"]
    monkeypatch.setattr(
        tool, "try_apart", lambda n: record(tool, n, strides="8" if n == "c" else "4")
    )
    (line,) = tool.check(listed, 9)
    assert line.startswith("c: the list has") and "strides='4'" in line and "strides='8'" in line
    assert all(len(tool.check(listed, 1, seed=i)) <= 1 for i in range(8))


def _segfault(name):
    faulthandler.disable()  # pytest's would print the stack among the tests' output
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        (lambda name: os.kill(os.getpid(), signal.SIGXCPU), "took more than 180 s"),
        (_segfault, "its process ended with signal 11"),
        (lambda name: bytearray(64 << 30), "MemoryError()"),
    ],
)
def test_a_model_that_needs_too_much_ends_its_own_process_only(tool, monkeypatch, does, reason):
    monkeypatch.setattr(tool, "try_model", does)
    assert dataclasses.asdict(tool.try_apart("resnet18")) == {
        **dict.fromkeys([f.name for f in dataclasses.fields(tool.Record)], ""),
        "name": "resnet18",
        "family": "resnet",
        "outcome": "not run",
        "reason": reason,
        "timm": timm.__version__,
    }


def test_an_error_of_timms_own_is_no_outcome_of_a_user(tool, monkeypatch):
    def broken(**kwargs):
        raise RuntimeError("raw text")

    monkeypatch.setattr(tool, "TimmBackbone", broken)
    found = tool.try_model("test_vit")
    assert (found.outcome, found.reason) == ("fails", "RuntimeError('raw text')")
