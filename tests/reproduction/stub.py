"""A stand-in for tools/train_net.py, and runs for it: no training, but its files and its flags."""

from pathlib import Path

from iou_balanced.reproduction import Run, run_all

SCRIPT = """
import json, pathlib, sys, time
words = sys.argv[1:]
values = dict(word.split("=", 1) for word in words if "=" in word)
folder = pathlib.Path(values["train.output_dir"])
with open(folder / "calls.txt", "a") as f:
    f.write(json.dumps(words) + "\\n")
print("eta: 0:00:01  iter: 19  total_loss: 1.5  loss: 1", flush=True)
while "wait" in values and not pathlib.Path(values["wait"]).exists():
    time.sleep(0.05)
if "break" in values and "--resume" not in words:
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    sys.exit("RuntimeError: out of memory")
if "fail" in values:
    print("error: the data set is missing", file=sys.stderr)
    sys.exit(1)
(folder / "model_final.pth").write_text("")
(folder / "last_checkpoint").write_text("model_final.pth")
print("Total inference pure compute time: 0:00:02 (0.025 s / iter per device, on 1 devices)")
if "mute" not in values:
    with open(folder / "metrics.json", "a") as f:
        f.write('{"iteration": 3, "total_loss": 1.0}\\n{"iteration": 4, "bbox/AP": 10.0')
        last = {"iteration": 9, "bbox/AP": 20.5, "bbox/APl": float("nan")}
        f.write("\\n" + json.dumps(last) + "\\n")
"""


def make_root(folder: Path) -> Path:
    """A folder with the stand-in as its tools/train_net.py."""
    (folder / "tools").mkdir(parents=True)
    (folder / "tools/train_net.py").write_text(SCRIPT)
    return folder


def stub_run(name: str, *overrides: str, seed: int = 0, starts_from: str | None = None) -> Run:
    """A run of the config Stub/`name`."""
    return Run(f"Stub/{name}", overrides, "full", (), seed, (f"stub/1/{name}",), starts_from)


def execute(root: Path, *runs: Run, **kwargs):
    """(outcomes, lines of progress) of the runs, in the folder "out" below the root."""
    lines = []
    outcomes = run_all(runs, output_dir=root / "out", root=root, say=lines.append, **kwargs)
    return outcomes, lines


def calls(root: Path, run: Run) -> list[str]:
    """The command lines that the stand-in was called with, as JSON."""
    return (run.folder(root / "out") / "calls.txt").read_text().splitlines()
