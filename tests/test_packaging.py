"""The wheel and the sdist: what is in them, and that they work in a fresh environment."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from iou_balanced import get_config_file

from .environments import clean_env, fresh_environment, run

ROOT = Path(__file__).resolve().parents[1]
NAME = "COCO/retinanet_R_50_FPN_1x_iou_balanced.py"


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """(wheel, sdist); the wheel is built from the sdist. Tracked files only, as a release has."""
    source = tmp_path_factory.mktemp("source")
    listed = run("git", "-C", ROOT, "ls-files", "-z").stdout.split("\0")
    for name in filter(None, listed):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(ROOT / name)
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_has_the_package_and_the_configs_and_nothing_else(archives):
    with zipfile.ZipFile(archives[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = ROOT / "projects" / "iou_balanced"
    tracked = run("git", "-C", ROOT, "ls-files", "projects/iou_balanced", "configs").stdout.split()
    wanted = {f"iou_balanced/{n}" if n.startswith("configs/") else n for n in tracked}
    assert names == {name.removeprefix("projects/") for name in wanted}
    assert (package / "py.typed").is_file() is ("iou_balanced/py.typed" in names)


def test_the_sdist_has_what_is_tracked(archives):
    with tarfile.open(archives[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    tracked = set(run("git", "-C", ROOT, "ls-files").stdout.split("\n")) - {""}
    hidden = {name for name in tracked if name.startswith(".")}
    assert not tracked - hidden - names


def test_installed_in_a_fresh_environment(archives, tmp_path):
    python, site = fresh_environment(tmp_path, hidden=("iou_balanced",), pip=False)
    pip = (sys.executable, "-m", "pip", "--python", python)
    install = (*pip, "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    uses = ("from iou_balanced import balance; print(balance)",)
    uses += (f"print(iou_balanced.get_config_file({NAME!r}))",)
    for archive, code in zip(archives, uses, strict=True):
        run(*install, "--force-reinstall", archive, env=clean_env())
        code = f"import iou_balanced; print(iou_balanced.__file__); {code}"
        where, found = run(python, "-c", code, cwd=elsewhere, env=clean_env()).stdout.split("\n")[
            :2
        ]
        assert Path(where).is_relative_to(site)
        assert "function balance" in found or Path(found).is_relative_to(site)
    command = ("-m", "iou_balanced.train_net", "--config-file", NAME, "train.max_itr=1")
    failed = run(python, *command, check=False, cwd=elsewhere, env=clean_env())
    assert failed.returncode == 1 and "train.max_iter" in failed.stderr


def test_every_config_has_a_name():
    names = [p.relative_to(ROOT / "configs").as_posix() for p in ROOT.glob("configs/*/*.py")]
    assert NAME in names
    for name in names:
        assert Path(get_config_file(name)) == ROOT / "configs" / name


@pytest.mark.parametrize("name", ["COCO/retinanet_R_50.py", "../setup.py", "none.py", "COCO"])
def test_an_unknown_name_lists_what_there_is(name):
    with pytest.raises(FileNotFoundError, match=r"no published config is called .*retinanet"):
        get_config_file(name)


def test_a_file_in_the_working_directory_comes_first(tmp_path, monkeypatch):
    from iou_balanced.engine import UserError, load_config

    (tmp_path / "COCO").mkdir()
    (tmp_path / NAME).write_text("model = dict()\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="has no dataloader and no train"):
        load_config(NAME, [])
    (tmp_path / NAME).unlink()
    assert load_config(NAME, []).model.num_classes == 80


def test_a_process_is_not_needed_to_find_a_config():
    code = f"import sys, iou_balanced; print(iou_balanced.get_config_file({NAME!r}), *sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert NAME in found.stdout and "torch" not in found.stdout.split()
