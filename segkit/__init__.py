"""Instance and panoptic segmentation on Detectron2.

    load(weights or run)      a trained model; call it with images
    Prediction                what it gives for an image
    Trainer, prepare_config   train, with the class counts of the dataset
    load_config               read a config
    load_dataset              a registered dataset
    add_segkit_config         segkit's keys and models for a Detectron2 script
    register                  make datasets and models known to Detectron2

Importing this package is cheap: it registers nothing and imports no other package. The names are imported when they are
first used; those of models and training need the extra `train`.
"""

from typing import Any

__version__ = "0.1.0"

# name -> module that defines it; __init__.pyi says the same to type checkers and editors
PUBLIC = {
    "Prediction": "segkit.runtime.prediction",
    "SegmentationModel": "segkit.engine.inference.model",
    "Trainer": "segkit.engine.training.trainer",
    "add_segkit_config": "segkit.config",
    "load": "segkit.engine.inference.loading",
    "load_config": "segkit.config",
    "load_dataset": "segkit.data.catalog",
    "prepare_config": "segkit.engine.setup",
    "register": "segkit.engine",
}
__all__ = [*PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
