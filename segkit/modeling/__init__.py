"""Networks on Detectron2; `register_models` makes them known to it."""


def register_models() -> None:
    """Put every meta-architecture, head and backbone of segkit into Detectron2's registries; again is harmless."""
    from segkit.modeling import backbones, mask_heads, meta_arch, semantic_heads  # noqa: F401
