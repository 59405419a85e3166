"""python -m iou_balanced.doctor: what it says and when it exits 1."""

import subprocess
import sys
from types import SimpleNamespace

import detectron2
import pytest

from iou_balanced import doctor

HEAVY = ("torch", "torchvision", "detectron2", "numpy", "pycocotools", "matplotlib", "sklearn")


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def run_without(*names):
    """The doctor in a process of its own, where the named packages cannot be imported."""
    block = f"import sys; sys.modules.update(dict.fromkeys({names!r}))"
    return run(f"{block}; from iou_balanced import doctor; sys.exit(doctor.main())")


def test_a_good_environment():
    done = subprocess.run(
        [sys.executable, "-m", "iou_balanced.doctor"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("Training can work here.\n")
    for what in ("python ", "torch ", "torchvision ", "detectron2 ", "numpy ", "pycocotools "):
        assert f"\n{what}" in "\n" + done.stdout
    assert "release v0.6" in done.stdout or "main branch" in done.stdout


@pytest.mark.parametrize(
    "name, cure",
    [
        ("detectron2", "run python tools/install_detectron2.py"),
        ("torch", "install torch and torchvision of one release"),
    ],
)
def test_what_training_needs_is_named_with_its_cure(name, cure):
    done = run_without(name)
    assert done.returncode == 1, done.stdout + done.stderr
    fault = done.stdout.splitlines()[-1]
    assert fault.startswith("Training cannot work: ") and name in fault and cure in fault
    assert done.stderr == ""


def test_survives_without_everything():
    done = run_without(*HEAVY, *doctor.OPTIONAL)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr == ""
    for gives in doctor.OPTIONAL.values():
        assert f"it gives {gives}" in done.stdout


def test_a_torchvision_for_another_torch_is_a_fault(monkeypatch):
    """Such a torchvision imports, and fails when an operator is used."""

    def nms(*arguments):
        raise RuntimeError("operator torchvision::nms does not exist\nand a hundred lines more")

    fake = SimpleNamespace(__name__="torchvision", __version__="0.0", ops=SimpleNamespace(nms=nms))
    monkeypatch.setitem(sys.modules, "torchvision", fake)
    rows, faults = doctor.inspect()
    assert "torchvision::nms does not exist" in dict(rows)["torchvision"]
    assert len(faults) == 1 and "torchvision does not load with torch" in faults[0]


@pytest.mark.parametrize(
    "operators, says",
    [(SimpleNamespace(deform_conv_forward=1), "yes"), (SimpleNamespace(), "no, this is a pure")],
)
def test_compiled_operators_are_tried_and_not_only_imported(monkeypatch, operators, says):
    monkeypatch.setattr(detectron2, "_C", operators, raising=False)
    assert doctor.compiled_operators().startswith(says)


def test_gpus_are_listed_with_bfloat16(monkeypatch):
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        get_device_name=lambda i: ("T4", "H200")[i],
        get_device_capability=lambda i: ((7, 5), (9, 0))[i],
    )
    lines = doctor.devices(SimpleNamespace(cuda=cuda))
    assert lines == ["cuda:0 T4, without bfloat16", "cuda:1 H200, with bfloat16"]


@pytest.mark.parametrize("exists", [True, False])
def test_the_folder_of_data_sets(monkeypatch, tmp_path, exists):
    folder = tmp_path if exists else tmp_path / "missing"
    monkeypatch.setenv("DETECTRON2_DATASETS", str(folder))
    said = dict(doctor.inspect()[0])["data sets"]
    assert said.startswith(f"{folder} {'exists' if exists else 'does not exist'}")


def test_importing_the_doctor_imports_nothing_heavy():
    code = f"import sys, iou_balanced.doctor; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    assert run(code).stdout == "[]\n"


def test_setuptools_without_pkg_resources_is_a_fault_of_the_main_branch(monkeypatch):
    """As main's `import pkg_resources` does with setuptools 82."""
    error = "ModuleNotFoundError: No module named 'pkg_resources'"
    stock = doctor.load
    missing = {"detectron2.model_zoo": (None, error)}
    monkeypatch.setattr(doctor, "load", lambda name: missing.get(name) or stock(name))
    (fault,) = doctor.inspect()[1]
    assert "pkg_resources" in fault and "pip install 'setuptools<82'" in fault


@pytest.mark.parametrize(("number", "fits"), [("2.3.1", True), ("2.4.0", False), ("2.10", False)])
def test_an_omegaconf_that_is_too_new_is_a_fault(monkeypatch, number, fits):
    fake = SimpleNamespace(__name__="omegaconf", __version__=number)
    monkeypatch.setitem(sys.modules, "omegaconf", fake)
    faults = doctor.dependency_faults()
    cure = f"omegaconf is {number}, and Detectron2's LazyConfig needs one below 2.4"
    assert [cure in fault for fault in faults] == ([] if fits else [True])
