"""Training, evaluation and prediction as whole jobs."""


def register() -> None:
    """Register segkit's datasets and models in Detectron2, and import the plugins of SEGKIT_PLUGINS.

    Every command and `add_segkit_config` call it; a second call changes nothing.

    Raises:
        ConfigError: a plugin is not found or fails.
    """
    from segkit.data.datasets import register_datasets
    from segkit.modeling import register_models
    from segkit.utils.plugins import get_environment_plugins, load_plugins

    register_datasets()
    register_models()
    load_plugins(get_environment_plugins())
