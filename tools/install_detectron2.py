#!/usr/bin/env python
"""Install Detectron2 v0.6 as pure Python, from PyPI alone; do nothing where it already imports.

    python tools/install_detectron2.py                  # into this Python's environment
    python tools/install_detectron2.py --target DIR     # the package alone, into a folder

Detectron2 is not on PyPI under its own name. The source archive `pb1-detectron2` holds v0.6's
Python files and model-zoo configs, but not its C++ sources. The few lines in it that today's numpy,
Pillow, setuptools and torch refuse are mended (see detectron2_mends.py), and the result becomes an
ordinary wheel, so that `pip show detectron2` and `pip uninstall detectron2` work.
"""

import argparse
import base64
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from detectron2_mends import MENDS, NEW_FILES

SDIST = "pb1-detectron2==0.6"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
UNEARTH = "unearth==0.19.0"  # finds and downloads an archive by name without building it
VERSION = "0.6"
PYTHONS = ((3, 10), (3, 12))

# The requirements are v0.6's own, without what nothing imports any more (future, pydot,
# dataclasses), and with black (LazyConfig.to_py formats with it) free of an outdated pin.
METADATA = """\
Metadata-Version: 2.1
Name: detectron2
Version: 0.6
Summary: Detectron2 v0.6 as pure Python, without its compiled operators
Author: FAIR
License: Apache-2.0
License-File: LICENSE
Requires-Python: >=3.10
Requires-Dist: Pillow>=7.1
Requires-Dist: matplotlib
Requires-Dist: pycocotools>=2.0.2
Requires-Dist: termcolor>=1.1
Requires-Dist: yacs>=0.1.8
Requires-Dist: tabulate
Requires-Dist: cloudpickle
Requires-Dist: tqdm>4.29.0
Requires-Dist: tensorboard
Requires-Dist: fvcore>=0.1.5,<0.1.6
Requires-Dist: iopath>=0.1.7,<0.1.10
Requires-Dist: omegaconf>=2.1,<2.4
Requires-Dist: hydra-core>=1.1
Requires-Dist: black
"""
WHEEL = """\
Wheel-Version: 1.0
Generator: install_detectron2
Root-Is-Purelib: true
Tag: py3-none-any
"""

# Folders of the archive -> where they go in the wheel.
TREES = {
    "detectron2": "detectron2",
    "projects/PointRend/point_rend": "detectron2/projects/point_rend",
    "projects/DeepLab/deeplab": "detectron2/projects/deeplab",
    "projects/Panoptic-DeepLab/panoptic_deeplab": "detectron2/projects/panoptic_deeplab",
}


class InstallError(Exception):
    """Why it went wrong and what would be right, in one line."""


def run(command, what, env=None):
    """Run a command quietly; where it fails raise one line with the last thing that it said."""
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in lines if "error" in line.lower()]
        raise InstallError(f"{what}: {([*errors[-1:], *lines[-1:], 'no output'])[0]}")
    return done.stdout


def pip(*arguments):
    """The command line of this Python's pip."""
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]


def existing():
    """One line about the Detectron2 that this Python finds, or None.

    Raises:
        InstallError: where one is installed but does not import; it is not ours to replace.
    """
    spec = importlib.util.find_spec("detectron2")
    if spec is None or spec.origin is None:  # a bare folder of that name has no origin
        return None
    where = Path(spec.origin).parent
    if importlib.util.find_spec("torch") is None:
        return f"detectron2 is already in {where}; nothing changed."
    # The working directory must not count: it may hold a clone of Detectron2's repository.
    probe = "import sys; sys.path[:] = [p for p in sys.path if p]; import detectron2.engine as e; "
    probe += "import detectron2; print(detectron2.__version__)"
    # Main's model zoo imports it, and setuptools 82 no longer has it.
    zoo = Path(where, "model_zoo", "model_zoo.py")
    wants = zoo.is_file() and "import pkg_resources" in zoo.read_text()
    lacks = wants and importlib.util.find_spec("pkg_resources") is None
    note = " Its model zoo needs pkg_resources: pip install 'setuptools<82'." if lacks else ""
    fault = f"detectron2 is in {where} but does not import (repair it, or remove it with `pip "
    fault += "uninstall detectron2` and run this again)"
    version = run([sys.executable, "-c", probe], fault).strip().splitlines()[-1]
    return f"detectron2 {version} is already in {where}; nothing changed.{note}"


def index_options():
    """The index that pip is set to use, for people behind a mirror; unearth does not read it."""
    listed = subprocess.run(pip("config", "list"), capture_output=True, text=True).stdout
    settings = dict(line.split("=", 1) for line in listed.splitlines() if "=" in line)
    for key in (":env:.index-url", "install.index-url", "global.index-url"):
        if key in settings:
            return ["--index-url", settings[key].strip("'\"")]
    return []


def download(folder):
    """Download the source archive into `folder` and return its path."""
    env = dict(os.environ)
    fault = "cannot download {} from PyPI (check the network, or fetch the archive elsewhere and "
    fault += "pass it with --sdist FILE)"
    if importlib.util.find_spec("unearth") is None:
        # Into a folder that goes away again: the environment stays as it was.
        command = pip("install", "--quiet", "--retries", 2, "--target", folder / "unearth", UNEARTH)
        run(command, fault.format(UNEARTH))
        env["PYTHONPATH"] = str(folder / "unearth")
    command = [sys.executable, "-m", "unearth", SDIST, "--no-binary", "--download", str(folder)]
    run(command + index_options(), fault.format(SDIST), env)
    found = list(folder.glob("*.tar.gz"))
    if len(found) != 1:
        raise InstallError(fault.format(SDIST) + ": no archive came")
    return found[0]


def check_hash(archive):
    """Raise where `archive` is not the file that the mends were written for."""
    if not archive.is_file():
        raise InstallError(f"{archive}: no such file; --sdist takes the archive of {SDIST}")
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SDIST_SHA256:
        raise InstallError(
            f"{archive.name} has sha256 {found}, but {SDIST} has {SDIST_SHA256}: "
            "it is damaged or another file; download it again"
        )


def mend(root, mends=MENDS, new_files=None):
    """Apply the mends to the unpacked archive `root`; a text that is not there is an error."""
    for name, old, new, count in mends:
        text = (root / name).read_text(encoding="utf-8") if (root / name).is_file() else ""
        if text.count(old) != count:
            raise InstallError(
                f"{name}: expected {old.strip()!r} {count} times but found it {text.count(old)} "
                "times; this is not the source that the mends were written for"
            )
        (root / name).write_text(text.replace(old, new), encoding="utf-8")
    for name, text in (NEW_FILES if new_files is None else new_files).items():
        (root / name).write_text(text, encoding="utf-8")


def build_wheel(root, folder):
    """Write the mended tree `root` as a wheel into `folder` and return its path.

    A pure-Python wheel is a zip file with three small texts, so no build tool is needed, which an
    offline machine might lack.
    """
    info = f"detectron2-{VERSION}.dist-info"
    files = {f"{info}/LICENSE": (root / "LICENSE").read_bytes()}
    for source, package in TREES.items():
        for path in sorted((root / source).rglob("*")):
            if path.is_file():
                files[f"{package}/{path.relative_to(root / source).as_posix()}"] = path.read_bytes()
    files |= {f"{info}/METADATA": METADATA.encode(), f"{info}/WHEEL": WHEEL.encode()}
    record = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(data)}")
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    path = folder / f"detectron2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def missing_requirements(target):
    """Those of Detectron2's requirements that neither this Python nor `target` has, by name."""
    import importlib.metadata  # here, so that a Python without it still gets main's plain answer

    path = [str(target), *sys.path]
    have = {d.metadata["Name"].lower() for d in importlib.metadata.distributions(path=path)}
    needed = [*re.findall("Requires-Dist: (.+)", METADATA), "torch", "torchvision"]
    return [r for r in needed if re.match("[A-Za-z0-9-]+", r).group().lower() not in have]


def install(sdist=None, target=None, constraint=None):
    """Download, check, mend, build, and only then install."""
    with tempfile.TemporaryDirectory(prefix="detectron2-") as folder:
        folder = Path(folder)
        archive = Path(sdist) if sdist else download(folder)
        check_hash(archive)
        # The filter is not in the first releases of Python 3.10 and 3.11.
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        with tarfile.open(archive) as tar:
            tar.extractall(folder, **safely)
        root = folder / SDIST.replace("==", "-")
        mend(root)
        options = ["--no-deps", "--target", target] if target else []
        options += ["--constraint", constraint] if constraint else []
        wheel = build_wheel(root, folder)
        run(pip("install", "--quiet", *options, wheel), "pip could not install detectron2")


def main(arguments=None):
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--target", type=Path, metavar="DIR", help="put the package alone into DIR")
    parser.add_argument("--sdist", type=Path, metavar="FILE", help=f"downloaded archive of {SDIST}")
    parser.add_argument("--constraint", metavar="FILE", help="pip constraints for the requirements")
    options = parser.parse_args(arguments)
    target = options.target
    try:
        if target is None:
            found = existing()
        else:
            found = f"{target} already holds a detectron2; nothing changed."
            found = found if any(target.glob("detectron2*")) else None
        if found:
            print(found)
            return 0
        if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
            low, high = (".".join(map(str, version)) for version in PYTHONS)
            raise InstallError(
                f"this is Python {sys.version_info[0]}.{sys.version_info[1]}, but Detectron2 "
                f"{VERSION} is supported on Python {low} to {high}; run this with one of them"
            )
        install(options.sdist, target, options.constraint)
    except InstallError as error:
        print(f"install_detectron2: {error}", file=sys.stderr)
        return 1
    where = f" into {target}" if target else ""
    print(f"Installed detectron2 {VERSION} (pure Python, no compiled operators){where}.")
    missing = missing_requirements(target or "")
    if missing:
        print(f"It still needs: {' '.join(missing)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
