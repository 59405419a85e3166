"""tools/install_detectron2.py: its refusals, and a whole installation in a fresh environment."""

import importlib
import os
import re
import sys
from pathlib import Path

import pytest

from .environments import clean_env, fresh_environment, run

TOOLS = Path(__file__).resolve().parent.parent / "tools"
SCRIPT = TOOLS / "install_detectron2.py"


@pytest.fixture
def tool(monkeypatch):
    """The installer as a module."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("install_detectron2")


@pytest.fixture
def no_install(tool, monkeypatch):
    """The installer, with a failure where it would go on to install."""

    def unexpected(*arguments):
        raise AssertionError("went on to install")

    monkeypatch.setattr(tool, "install", unexpected)
    return tool


def only_line(text):
    assert text.endswith("\n") and text.count("\n") == 1, text
    return text.strip()


def test_mends_replace_the_text_and_write_the_new_files(tool, tmp_path):
    (tmp_path / "a.py").write_text("x = np.int\ny = np.int\n")
    mends = (("a.py", "np.int", "int", 2), ("a.py", "y = int", "y = 3", 1))
    tool.mend(tmp_path, mends, {"b.py": "z = 1\n"})
    assert (tmp_path / "a.py").read_text() == "x = int\ny = 3\n"
    assert (tmp_path / "b.py").read_text() == "z = 1\n"


@pytest.mark.parametrize("name, count", [("a.py", 2), ("missing.py", 1)])
def test_a_text_that_is_not_as_expected_is_an_error(tool, tmp_path, name, count):
    (tmp_path / "a.py").write_text("x = np.int\n")
    with pytest.raises(tool.InstallError, match=rf"{name}: expected 'np.int' {count} times"):
        tool.mend(tmp_path, ((name, "np.int", "int", count),), {})
    assert (tmp_path / "a.py").read_text() == "x = np.int\n"


def test_no_mend_leaves_its_old_text_behind(tool):
    """Mends of one file apply in turn, so none may bring back what another one removed."""
    for name, old, new, count in tool.MENDS:
        assert count > 0
        others = [text for other, text, _, _ in tool.MENDS if other == name and text != old]
        assert not any(text in new for text in others)


def test_wrong_hash_is_one_line_and_leaves_the_target_alone(tool, tmp_path, capsys):
    archive, target = tmp_path / "pb1-detectron2-0.6.tar.gz", tmp_path / "target"
    archive.write_bytes(b"not the archive")
    assert tool.main(["--sdist", str(archive), "--target", str(target)]) == 1
    line = only_line(capsys.readouterr().err)
    assert "has sha256" in line and tool.SDIST_SHA256 in line and "download it again" in line
    assert not target.exists()


def test_missing_archive_is_one_line(tool, tmp_path, capsys):
    gone = tmp_path / "gone.tar.gz"
    assert tool.main(["--sdist", str(gone), "--target", str(tmp_path / "target")]) == 1
    assert "no such file" in only_line(capsys.readouterr().err)


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 13, 0)])
def test_unsupported_python_is_one_line(no_install, tmp_path, capsys, monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", version)
    assert no_install.main(["--target", str(tmp_path / "target")]) == 1
    line = only_line(capsys.readouterr().err)
    assert f"this is Python 3.{version[1]}" in line and "3.10 to 3.12" in line


def test_no_network_is_one_line_and_leaves_the_target_alone(tmp_path):
    # Nothing answers on the discard port of this machine.
    index = "http://127.0.0.1:9/simple"
    env = clean_env(PIP_INDEX_URL=index, PIP_EXTRA_INDEX_URL=index, PIP_RETRIES=0)
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "PIP_FIND_LINKS"):
        env.pop(proxy, None)
    target = tmp_path / "target"
    done = run(sys.executable, SCRIPT, "--target", target, check=False, env=env)
    assert done.returncode == 1
    line = only_line(done.stderr)
    assert "from PyPI" in line and "check the network" in line and "--sdist" in line
    assert not target.exists()


def test_does_nothing_where_detectron2_imports(no_install, capsys):
    assert no_install.main([]) == 0
    assert re.match(
        r"detectron2 0\.6\S* is already in .+; nothing changed\.",
        only_line(capsys.readouterr().out),
    )


def test_does_nothing_where_the_target_holds_one(no_install, tmp_path, capsys):
    (tmp_path / "detectron2").mkdir()
    assert no_install.main(["--target", str(tmp_path)]) == 0
    assert "already holds a detectron2" in only_line(capsys.readouterr().out)


def test_a_broken_detectron2_is_reported_and_not_replaced(tmp_path):
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text("raise ImportError('undefined symbol')\n")
    done = run(sys.executable, SCRIPT, check=False, env=clean_env(PYTHONPATH=tmp_path))
    assert done.returncode == 1
    line = only_line(done.stderr)
    assert "does not import" in line and "undefined symbol" in line and str(tmp_path) in line


@pytest.mark.parametrize("has_it", [True, False])
def test_a_main_branch_without_pkg_resources_is_told(tmp_path, has_it):
    """As main's model zoo imports it, and setuptools 82 no longer has it."""
    for module in ("__init__", "engine", "model_zoo/__init__", "model_zoo/model_zoo"):
        path = tmp_path / "detectron2" / f"{module}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text('__version__ = "0.6"\n')
    path.write_text("import pkg_resources\n")
    (tmp_path / "pkg_resources.py").touch()
    hide = "" if has_it else "sys.modules['pkg_resources'] = None; "
    code = f"import runpy, sys; {hide}runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    env = clean_env(PYTHONPATH=os.pathsep.join([str(tmp_path), str(SCRIPT.parent)]))
    line = only_line(run(sys.executable, "-c", code, env=env).stdout)
    assert ("pip install 'setuptools<82'" in line) is not has_it


def test_requirements_that_the_target_lacks(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    (tmp_path / "yacs-0.1.8.dist-info").mkdir()
    (tmp_path / "yacs-0.1.8.dist-info" / "METADATA").write_text("Name: yacs\nVersion: 0.1.8\n")
    missing = tool.missing_requirements(tmp_path)
    assert {"torch", "torchvision", "fvcore>=0.1.5,<0.1.6", "black"} <= set(missing)
    assert "yacs>=0.1.8" not in missing


USE_IT = """
import detectron2.engine, detectron2.evaluation, detectron2.export, detectron2.modeling
import detectron2.projects.deeplab
from detectron2 import _C, model_zoo
from detectron2.config import LazyConfig, instantiate
from detectron2.evaluation.fast_eval_api import COCOeval_opt
from detectron2.utils.collect_env import collect_env_info

cfg = model_zoo.get_config("COCO-Detection/retinanet_R_50_FPN_1x.py")
assert "RetinaNet" in LazyConfig.to_py(cfg)
model_zoo.get_config("COCO-Detection/retinanet_R_50_FPN_1x.yaml")
cfg.model.backbone.bottom_up.stages.depth = 18
del cfg.model.backbone.bottom_up.stages.stride_in_1x1
print(type(instantiate(cfg.model)).__name__)
assert "not built correctly" in collect_env_info()
try:
    _C.nms_rotated
except AttributeError as error:
    print(error)
"""


def test_installs_into_a_fresh_environment_and_leaves_it(tmp_path):
    """One test, so that a machine without network skips one thing: its steps need each other."""
    python, site = fresh_environment(tmp_path, hidden=("detectron2", "iou_balanced"))
    env = clean_env(TMPDIR=tmp_path / "tmp")
    (tmp_path / "tmp").mkdir()
    before = {entry.name for entry in site.iterdir()}

    def here(*command, **options):
        return run(python, *command, env=env, cwd=tmp_path, **options)

    assert here("-c", "import detectron2", check=False).returncode != 0
    done = here(SCRIPT, check=False)
    if "check the network" in done.stderr:
        pytest.skip(f"needs PyPI: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "Installed detectron2 0.6" in only_line(done.stdout)
    assert list((tmp_path / "tmp").iterdir()) == []
    added = {entry.name for entry in site.iterdir()} - before
    assert added == {"detectron2", "detectron2-0.6.dist-info"}
    removed_from_numpy = re.compile(r"\bnp\.(bool|int|float|object|str)\b")
    for path in (site / "detectron2").rglob("*.py"):
        assert not removed_from_numpy.search(path.read_text()), path

    shown = here("-m", "pip", "show", "--files", "detectron2").stdout
    assert "Name: detectron2\nVersion: 0.6\n" in shown
    assert "model_zoo/configs/common/models/retinanet.py" in shown
    used = here("-c", USE_IT).stdout
    assert "RetinaNet" in used and "has no compiled operators" in used
    assert "nothing changed" in here(SCRIPT).stdout

    here("-m", "pip", "uninstall", "--yes", "detectron2")
    assert {entry.name for entry in site.iterdir()} == before
    assert here("-c", "import detectron2", check=False).returncode != 0

    target = tmp_path / "target"
    assert f"into {target}" in here(SCRIPT, "--target", target).stdout
    env["PYTHONPATH"] = str(target)
    assert str(target) in here("-c", "import detectron2.layers as it; print(it.__file__)").stdout
