"""What install_detectron2.py changes in Detectron2 v0.6's Python files, as data.

The archive that this applies to is fixed by its hash, so each text is expected exactly as often as
stated; anything else is an error.
"""

STAND_IN = '''\
"""Stand-in for Detectron2's compiled operators, which this pure-Python build does not have.

Importing it is harmless; using an operator says what is missing.
"""


def __getattr__(name):
    raise AttributeError(
        f"detectron2._C.{name}: this pure-Python build of Detectron2 0.6 has no compiled operators "
        "(rotated boxes, deformable convolution). To get them, run `pip uninstall detectron2` and "
        "build Detectron2 from its source repository with a C++ compiler."
    )
'''

FAST_EVAL = '''\
"""This pure-Python build lacks the compiled COCO evaluation; pycocotools gives the same numbers."""
from pycocotools.cocoeval import COCOeval as COCOeval_opt  # noqa
'''

# File -> its whole new text, for files that are replaced (or, like _C.py, new).
NEW_FILES = {
    "detectron2/_C.py": STAND_IN,
    "detectron2/evaluation/fast_eval_api.py": FAST_EVAL,
}

# (file, old text, new text, how often the old text stands there)
MENDS = (
    # Aliases that numpy 1.24 removed.
    ("detectron2/data/build.py", "dtype=np.int\n", "dtype=int\n", 1),
    ("detectron2/data/build.py", "dtype=np.int)", "dtype=int)", 1),
    ("detectron2/data/datasets/pascal_voc.py", "dtype=np.str)", "dtype=str)", 1),
    ("detectron2/evaluation/pascal_voc_evaluation.py", "astype(np.bool)", "astype(bool)", 2),
    ("detectron2/evaluation/sem_seg_evaluation.py", "dtype=np.int)", "dtype=int)", 2),
    ("detectron2/evaluation/sem_seg_evaluation.py", "dtype=np.float)", "dtype=float)", 2),
    ("detectron2/evaluation/sem_seg_evaluation.py", "astype(np.float)", "astype(float)", 3),
    ("detectron2/structures/masks.py", "astype(np.bool)", "astype(bool)", 2),
    ("detectron2/structures/masks.py", "dtype=np.bool)", "dtype=bool)", 1),
    ("detectron2/utils/video_visualizer.py", "dtype=np.bool)", "dtype=bool)", 1),
    ("detectron2/utils/visualizer.py", "astype(np.bool)", "astype(bool)", 3),
    # numpy 2 raises where copy=False cannot be kept.
    ("detectron2/layers/mask_ops.py", "np.array(mask, copy=False)", "np.asarray(mask)", 1),
    # Pillow 10 removed Image.LINEAR, an alias of BILINEAR.
    ("detectron2/data/transforms/transform.py", "Image.LINEAR", "Image.BILINEAR", 1),
    # setuptools 82 removed pkg_resources, and Python 3.12 environments have no setuptools.
    ("detectron2/model_zoo/model_zoo.py", "import pkg_resources\n", "", 1),
    (
        "detectron2/model_zoo/model_zoo.py",
        'pkg_resources.resource_filename(\n        "detectron2.model_zoo", '
        'os.path.join("configs", config_path)\n    )',
        'os.path.join(os.path.dirname(os.path.abspath(__file__)), "configs", config_path)',
        1,
    ),
    # torch warns at each start that meshgrid will require `indexing`.
    (
        "detectron2/modeling/anchor_generator.py",
        "torch.meshgrid(shifts_y, shifts_x)",
        'torch.meshgrid(shifts_y, shifts_x, indexing="ij")',
        1,
    ),
    # torch no longer brings caffe2; the other exports do without it.
    (
        "detectron2/export/__init__.py",
        "from .api import *\n",
        "try:\n    from .api import *\nexcept ImportError:\n    pass  # torch has no caffe2 now\n",
        1,
    ),
    # The stand-in imports, so the report on the environment has to use an operator to see it.
    (
        "detectron2/utils/collect_env.py",
        "        import detectron2._C as _C\n    except ImportError as e:\n",
        "        import detectron2._C as _C\n\n        _C.get_compiler_version()\n"
        "    except (ImportError, AttributeError) as e:\n",
        1,
    ),
)
