"""Networks built on Detectron2. `register_models` adds them to its registries."""


def register_models() -> None:
    """Add every meta-architecture, head and backbone of segkit to Detectron2's registries. Idempotent."""
    from segkit.modeling import anchors, backbones, mask_heads, meta_arch, semantic_heads  # noqa: F401
