"""`segkit train`: train and evaluate a model, with Detectron2's arguments."""

from segkit.engine.train import add_arguments, run

__all__ = ["add_arguments", "run"]
