"""Instance and panoptic segmentation on Detectron2.

Importing this package is cheap: it registers nothing and imports no other package. The names of `PUBLIC` are imported
when they are first used.
"""

from typing import Any

__version__ = "0.1.0"

# name -> module that defines it
PUBLIC = {
    "Predictor": "segkit.engine.predictor",
    "Trainer": "segkit.engine.training.trainer",
    "add_segkit_config": "segkit.config",
    "load_config": "segkit.config",
    "load_dataset": "segkit.data.catalog",
    "prepare_config": "segkit.engine.setup",
    "register": "segkit.engine",
}


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
