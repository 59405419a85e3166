"""The published LazyConfig files, wherever this package is installed."""

from pathlib import Path

__all__ = ["get_config_file"]

_PACKAGE = Path(__file__).resolve().parent


def get_config_file(name: str) -> str:
    """Path of a published config, as `detectron2.model_zoo.get_config_file` gives the zoo's.

    Args:
        name: below `configs/`, for example "COCO/retinanet_R_50_FPN_1x_iou_balanced.py".

    Raises:
        FileNotFoundError: there is no such config; the message lists those of its folder.
    """
    folder = _configs_folder()
    path = folder / name
    if path.is_file() and folder in path.resolve().parents:
        return str(path)
    near = path.parent if path.parent.is_dir() else folder
    found = sorted(
        file.relative_to(folder).as_posix()
        for file in near.rglob("*.py")
        if file.relative_to(folder).parts[0] != "common"
    )
    raise FileNotFoundError(f"no published config is called {name!r}; there are {', '.join(found)}")


def _configs_folder() -> Path:
    # In a wheel they lie in the package, in a clone beside it.
    packaged = _PACKAGE / "configs"
    return packaged if packaged.is_dir() else _PACKAGE.parents[1] / "configs"
