"""Training, evaluation and prediction as whole jobs."""


def register_all() -> None:
    """Make segkit's datasets and models known to Detectron2: the one call that entry points and notebooks need."""
    from segkit.data.datasets import register_datasets
    from segkit.modeling import register_models

    register_datasets()
    register_models()
