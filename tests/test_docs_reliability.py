"""The scripts in docs/reliability.md do what the page says."""

import os
import signal
import subprocess
import time

import pytest
import yaml
from detectron2.engine import default_argument_parser

from iou_balanced import get_config_file
from iou_balanced.engine import load_config

from .docs_blocks import blocks

TEXTS = [block.code for block in blocks("docs/reliability.md", "text")]
(SLURM,) = (text for text in TEXTS if text.startswith("#!"))
(KUBERNETES,) = (text for text in TEXTS if text.startswith("apiVersion"))
TRAINING = """#!/bin/bash
trap 'echo asked >> asked; sleep 0.3; exit {code}' USR1
touch started
while true; do sleep 0.05; done
"""


def script(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.parametrize("code", [75, 1])
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_the_slurm_script_queues_a_stopped_run_again(tmp_path, number, code):
    script(tmp_path / "tools/train_net.py", TRAINING.format(code=code))
    script(tmp_path / "bin/scontrol", '#!/bin/bash\necho "$@" > queued\n')
    script(tmp_path / "job.sh", SLURM)
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    environment["SLURM_JOB_ID"] = "17"
    process = subprocess.Popen([tmp_path / "job.sh"], cwd=tmp_path, env=environment)
    end = time.monotonic() + 60
    while not (tmp_path / "started").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(60) == code
    assert (tmp_path / "asked").read_text() == "asked\n"
    queued = tmp_path / "queued"
    assert queued.exists() == (code == 75)
    if code == 75:
        assert queued.read_text() == "requeue 17\n"


def test_the_slurm_script_trains_a_config_that_is_there():
    (line,) = (x for x in SLURM.replace("\\\n", " ").splitlines() if x.startswith("tools/train"))
    args = default_argument_parser().parse_args(line.rstrip(" &").split()[1:])
    assert args.resume and args.num_gpus == 8
    load_config(args.config_file, args.opts)


def test_the_kubernetes_job_trains_a_config_that_is_there():
    job = yaml.safe_load(KUBERNETES)["spec"]
    (container,) = job["template"]["spec"]["containers"]
    command = container["command"] + container["args"]
    assert command[:3] == ["python", "-m", "iou_balanced.train_net"]
    args = default_argument_parser().parse_args(command[3:])
    assert args.resume
    load_config(str(get_config_file(args.config_file)), args.opts)
    codes = {
        rule["action"]: rule["onExitCodes"]["values"] for rule in job["podFailurePolicy"]["rules"]
    }
    assert codes == {"Ignore": [75], "FailJob": [1]}
