"""Training, evaluation and prediction as whole jobs."""


def register_all() -> None:
    """Register segkit's datasets and models in Detectron2. Scripts and notebooks call this once."""
    from segkit.data.datasets import register_datasets
    from segkit.modeling import register_models

    register_datasets()
    register_models()
