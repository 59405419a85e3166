"""Values of options that make no sense, each one line that names the key and what is allowed."""

import os

import pytest
from omegaconf import OmegaConf

from iou_balanced.engine import UserError, launch, load_config, main
from iou_balanced.engine.checks import check_config, check_output_dir
from iou_balanced.engine.options import LARGEST_SEED, TRAIN_OPTIONS, train_defaults

from .helpers import BASELINE, CONFIG, ROOT, make_args, tiny_config, train_net

WHOLE = "give a whole number from 1 on"
FLAG = "give true or false"
ABOVE = r"give a number above 0, or null for no clipping"

BAD = {
    "train.max_iter": (["abc", "1.5", "0", "-5", "null", "true", "9e4"], WHOLE),
    "train.eval_period": (["x", "-1", "2.5", "null"], r"give a whole number from 0 on; 0 eval"),
    "train.checkpointer.period": (["0", "-1", "x", "null", "1.5"], WHOLE),
    "train.checkpointer.max_to_keep": (["0", "-3", "x"], rf"{WHOLE}, or null for all of them"),
    "train.log_period": (["0", "x", "-20", "null"], WHOLE),
    "train.reference_batch_size": (["0", "-8", "x", "1.5"], rf"{WHOLE}, or null for no linear"),
    "train.accumulation_steps": (["0", "true", "2.0", "null", "x"], WHOLE),
    "train.seed": (
        ["abc", "1.5", "-2", str(LARGEST_SEED + 1), "true"],
        rf"give a whole number from 0 to {LARGEST_SEED}, or null for none",
    ),
    "train.amp.enabled": (["maybe", "off", "2", "null"], FLAG),
    "train.amp.dtype": (["float64", "16", "null"], "give auto, float16 or bfloat16"),
    "train.ddp.broadcast_buffers": (["maybe"], FLAG),
    "train.ddp.find_unused_parameters": (["maybe", "null"], FLAG),
    "train.ddp.fp16_compression": (["maybe"], FLAG),
    "train.ddp.static_graph": (["maybe"], FLAG),
    "train.ddp.bucket_cap_mb": (["0", "x"], "give a number above 0"),
    "train.on_bad_image": (["ignore", "null", "true", "5"], "give error or skip"),
    "train.progress_bar": (["maybe"], FLAG),
    "train.report": (["maybe"], FLAG),
    "train.allow_random_backbone": (["maybe"], FLAG),
    "train.check_values": (["maybe", "null", "5"], FLAG),
    "train.unsafe_load": (["maybe", "null", "5"], FLAG),
    "train.cudnn_benchmark": (["maybe", "5"], FLAG),
    "train.channels_last": (["maybe", "5"], FLAG),
    "train.clip_grad.max_norm": (["-1", "0", "nan", "inf", "abc", "true"], ABOVE),
    "train.clip_grad.norm_type": (["0", "-2", "abc", "nan", "null"], "give a number from 1 on, or"),
    "train.best_checkpoint.mode": (["maximum", "null"], "give max or min"),
    "train.best_checkpoint.metric": (
        ["5", "''", "' '"],
        "give the name of a metric, such as bbox/AP, or null for no best checkpoint",
    ),
    "train.device": (["gpu", "5.5", "null", "''", "meta"], "give cpu, cuda or cuda:NUMBER"),
    "train.init_checkpoint": (["5"], "give a text"),
    "train.output_dir": (["''", "' '", "null", "5"], "give the name of a folder"),
    "dataloader.train.total_batch_size": (["0", "-8", "abc", "null", "2.5"], WHOLE),
    "dataloader.train.num_workers": (["-1", "two", "0.5"], "give a whole number from 0 on"),
    "dataloader.test.num_workers": (["-1", "two"], "give a whole number from 0 on"),
    "optimizer.lr": (["abc", "nan", "inf", "-1", "null"], "give a number from 0 on"),
    "optimizer.weight_decay": (["-0.1", "nan", "x"], "give a number from 0 on"),
    "optimizer.params.weight_decay_norm": (["-1", "x"], "give a number from 0 on, or null for opt"),
    "lr_multiplier.warmup_factor": (["-1", "x", "inf"], "give a number from 0 on"),
    "lr_multiplier.warmup_length": (["-1", "500", "x"], r"give a number in \[0, 1\], a share"),
    "lr_multiplier.warmup_method": (["sudden"], "give linear or constant"),
    "model": (["5", "null"], r"give a call, .*\(model\._target_=\.\.\. on the"),
    "optimizer": (["5", "null"], "give a call, a LazyCall of a function"),
    "optimizer.params": (["null", "x"], "give a call that takes `model`, such as"),
    "model.cls_loss": (["5", "true"], "give a call, a LazyCall of a function"),
    "model.anchor_generator": (["1.5"], "give a call, a LazyCall of a function"),
    "dataloader.train.mapper": (["5"], "give a call, a LazyCall of a function"),
    "lr_multiplier": (["null", "abc"], "give a call, a LazyCall of a function"),
    "dataloader": (["null"], "dataloader has keys of its own: train, test, evaluator"),
    "dataloader.train": (["5", "null"], "give a call, a LazyCall of a function"),
    "dataloader.test": (["null"], "give a call, a LazyCall of a function"),
    "train": (["null"], "train has keys of its own: output_dir, init_checkpoint"),
    "train.amp": (["null"], "train.amp has keys of its own: enabled, dtype"),
    "train.clip_grad": (["null"], "train.clip_grad has keys of its own: max_norm, norm_type"),
}


def written(value):
    """As the message has it; hydra takes the quotes off."""
    if value in ("''", "9e4", "' '"):
        return {"''": "''", "9e4": "90000.0", "' '": " "}[value]
    return value


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [(key, value, allowed) for key, (values, allowed) in BAD.items() for value in values],
)
def test_one_line_with_key_value_and_what_is_allowed(key, value, allowed):
    # In the words of the command line: null and true, not None and True.
    with pytest.raises(UserError, match=allowed) as e:
        load_config(CONFIG, ["train.device=cpu", f"{key}={value}"])
    assert str(e.value).startswith(f"{key}={written(value)}: ")
    assert "\n" not in str(e.value)


def test_a_list_in_the_place_of_keys():
    with pytest.raises(UserError, match=r"^model=\[\]: Cannot merge DictConfig with ListConfig$"):
        load_config(CONFIG, ["model=[]"])


def test_every_option_of_train_is_tried():
    # See test_class_mapping.py, test_repeat_sampling.py and test_logit_adjustment.py.
    of_others = {"train.init_classes", "train.repeat_threshold", "train.logit_adjustment"}
    assert {f"train.{key}" for key in TRAIN_OPTIONS} <= set(BAD) | of_others


GOOD = [
    *("train.max_iter=1", "train.eval_period=0", "train.checkpointer.max_to_keep=null"),
    *("train.seed=null", "train.seed=-1", "train.seed=0", f"train.seed={LARGEST_SEED}"),
    *("train.amp.enabled=true", "train.amp.enabled=1", "train.amp.dtype=bfloat16"),
    *("train.clip_grad.max_norm=1e-3", "train.clip_grad.norm_type=inf", "train.device=cpu:0"),
    *("train.clip_grad.max_norm=35", "train.clip_grad.norm_type=1", "train.init_checkpoint=null"),
    *("train.reference_batch_size=null", "train.best_checkpoint.metric=null"),
    *("train.best_checkpoint.mode=min", "train.device=cuda:1", "train.init_classes=[cat,dog]"),
    *("train.ddp.static_graph=true", "optimizer.lr=0", "optimizer.lr=1e-4"),
    *("optimizer.params.weight_decay_norm=null", "optimizer.weight_decay=0"),
    *("dataloader.train.num_workers=0", "dataloader.train.total_batch_size=1"),
    *("lr_multiplier.warmup_length=0.5", "+optimizer.betas=[0.9,0.99]"),
]


@pytest.mark.parametrize("override", GOOD)
def test_what_makes_sense_is_taken(override):
    key, _, value = override.lstrip("+").partition("=")
    cfg = load_config(CONFIG, [override])
    if value not in ("null", "inf") and "[" not in value:
        assert str(OmegaConf.select(cfg, key)).lower() in (value, str(float_or(value)))


def float_or(value):
    try:
        return float(value)
    except ValueError:
        return None


@pytest.mark.parametrize("override", ["+optimizer.betas=[0.9,2]", "+optimizer.betas=0.9"])
def test_betas(override):
    with pytest.raises(UserError, match=r"^optimizer\.betas=.*: give two numbers from 0 on and be"):
        load_config(CONFIG, [override])


def test_momentum_of_sgd():
    sgd = str(ROOT / "configs/COCO/retinanet_R_50_FPN_1x.py")
    load_config(sgd, ["optimizer.momentum=0"])
    for value in ("1", "-0.1", "x"):
        with pytest.raises(UserError, match=rf"momentum={value}: give .* from 0 on and below 1"):
            load_config(sgd, [f"optimizer.momentum={value}"])


def test_a_warm_up_of_ones_own_counts_as_it_likes():
    cfg = load_config(CONFIG, ["lr_multiplier._target_=builtins.dict", "lr_multiplier.warmup=500"])
    assert cfg.lr_multiplier.warmup == 500


def test_the_defaults_are_allowed():
    for key, option in TRAIN_OPTIONS.items():
        assert option.rule.allows(option.default), key
    assert train_defaults()["ddp"]["broadcast_buffers"] is False


def test_values_set_after_loading_are_looked_at_too():
    cfg = tiny_config()
    cfg.train.log_period = 0
    with pytest.raises(UserError, match=r"^train\.log_period=0: give"):
        check_config(cfg)


@pytest.mark.parametrize("key", ["optimizer", "lr_multiplier", "dataloader.train"])
def test_what_only_a_training_needs(key):
    cfg = tiny_config()
    parent, _, name = key.rpartition(".")
    del (OmegaConf.select(cfg, parent) if parent else cfg)[name]
    with pytest.raises(UserError, match=rf"^the config has no {key}: a training needs it"):
        check_config(cfg)
    check_config(cfg, eval_only=True)


class TestOutputDir:
    def test_a_folder_is_made(self, tmp_path):
        check_output_dir(str(tmp_path / "a/b"))
        assert os.listdir(tmp_path / "a/b") == []

    @pytest.mark.parametrize("below", ["", "/run"])
    def test_a_file(self, tmp_path, below):
        (tmp_path / "file").touch()
        message = r"^train\.output_dir=.* is no folder that can be written to \(.*\): give another"
        with pytest.raises(UserError, match=message):
            check_output_dir(f"{tmp_path}/file{below}")

    def test_where_nobody_can_write(self):
        with pytest.raises(UserError, match=r"^train\.output_dir=/proc/x is no folder that can be"):
            main(make_args(opts=["train.output_dir=/proc/x"]))


class TestConfigFile:
    def load(self, path, content):
        path.write_text(content)
        return load_config(str(path), [])

    @pytest.mark.parametrize("relative", [False, True])
    def test_a_syntax_error_names_file_and_line(self, tmp_path, relative):
        """Of the file itself, or of one that it imports."""
        path = tmp_path / "c.py"
        if relative:
            (tmp_path / "main.py").write_text("from .c import model\n")
        message = rf"^config file {path}, line 2: .*: model = dict\(a=$"
        with pytest.raises(UserError, match=message):
            path.write_text("x = 1\nmodel = dict(a=\n")
            load_config(str(tmp_path / ("main.py" if relative else "c.py")), [])

    def test_of_yaml_too(self, tmp_path):
        with pytest.raises(UserError, match=r"^config file .*c\.yaml, line 4: expected the"):
            self.load(tmp_path / "c.yaml", "model: {a: 1}\ntrain:\n  - b: [\n")

    @pytest.mark.parametrize("name", ["c.json", "c"])
    def test_another_suffix(self, tmp_path, name):
        with pytest.raises(UserError, match=rf"^config file .*{name} is neither \.py nor \.yaml"):
            self.load(tmp_path / name, "{}")

    @pytest.mark.parametrize("content", ["", "- a\n", "5\n"])
    def test_yaml_without_keys(self, tmp_path, content):
        with pytest.raises(UserError, match="holds no keys: it is no LazyConfig"):
            self.load(tmp_path / "c.yaml", content)

    def test_a_folder(self, tmp_path):
        (tmp_path / "c.py").mkdir()
        with pytest.raises(UserError, match=r"^config file .*c\.py cannot be read"):
            load_config(str(tmp_path / "c.py"), [])

    def test_values_of_a_file_are_looked_at_too(self, tmp_path):
        content = f"from detectron2.config import LazyConfig\nc = LazyConfig.load({BASELINE!r})\n"
        content += "model, dataloader, optimizer = c.model, c.dataloader, c.optimizer\n"
        content += "lr_multiplier, train = c.lr_multiplier, c.train\n"
        self.load(tmp_path / "good.py", content)
        with pytest.raises(UserError, match=r"^train\.log_period=0: "):
            self.load(tmp_path / "bad.py", content + "train.log_period = 0\n")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_gpus": -1}, "--num-gpus -1: give the processes of this machine"),
        ({"num_gpus": 0, "num_machines": 2}, "--num-gpus 0: give the processes of this machine"),
        ({"num_machines": 0}, "--num-machines 0: give a whole number from 1 on"),
        ({"num_machines": -2}, "--num-machines -2: give a whole number from 1 on"),
        ({"machine_rank": 1}, "--machine-rank 1 is none of --num-machines 1: .* from 0 to 0"),
        ({"machine_rank": -1}, "--machine-rank -1 is none of --num-machines 1"),
        ({"num_machines": 2, "machine_rank": 2}, "--machine-rank 2 is none of .* from 0 to 1"),
        ({"dist_url": "localhost:80"}, "--dist-url localhost:80: give auto, or an address"),
    ],
)
def test_flags_of_the_launcher(kwargs, message):
    with pytest.raises(UserError, match=f"^{message}"):
        launch(print, **kwargs)


@pytest.mark.parametrize(("name", "value"), [("RANK", "one"), ("LOCAL_RANK", "x")])
def test_an_environment_that_is_no_number(monkeypatch, name, value):
    environment = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "x", "MASTER_PORT": "1"}
    for key, default in {**environment, name: value}.items():
        monkeypatch.setenv(key, default)
    with pytest.raises(UserError, match=f"^the environment has {name}={value}: give a number"):
        launch(print)


def test_a_gpu_too_many(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    cfg = tiny_config()
    for device in ("cuda", "cuda:1"):
        cfg.train.device = device
        check_config(cfg)
    cfg.train.device = "cuda:2"
    with pytest.raises(UserError, match=r"^train\.device=cuda:2, but this machine shows 2 GPUs"):
        check_config(cfg)


@pytest.mark.parametrize(
    ("arguments", "last"),
    [
        (
            ["train.clip_grad.max_norm=-1"],
            "error: train.clip_grad.max_norm=-1: give a number above 0, or null for no clipping",
        ),
        (
            ["--num-gpus", "-1", "train.device=cpu"],
            "error: --num-gpus -1: give the processes of this machine, a whole number from 1 on",
        ),
        (
            ["train.best_checkpoint.mode=maximum", "datasets.train=nowhere"],
            "error: train.best_checkpoint.mode=maximum: give max or min",
        ),
    ],
)
def test_from_the_command_line(arguments, last):
    result = train_net(*arguments)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == last
    assert "Traceback" not in result.stderr
