"""Learning rates of a transformer's blocks that decay towards its input (Clark et al. 2020; BEiT, MAE, ViTDet)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from segkit.utils.errors import ConfigError

BACKBONE = "backbone."
NORM, BLOCK_TOP = TOPS = ("norm", "block")  # values of SOLVER.LAYER_DECAY_TOP
# In Detectron2's, timm's and DINO's names. Blocks of Swin and ConvNeXt are numbered through the stages:
# layers.0.blocks.1, stages.0.blocks.1.
BLOCK = re.compile(r"^(?P<stage>.*?)(?:^|\.)blocks\.\d+(?=\.)")
STAGE = re.compile(r"^.*?(?:^|\.)(?:layers|stages)[._]\d+(?=\.)")
EMBEDDING = re.compile(
    r"(?:^|\.)(?:\w*pos_embed|patch_embed|stem|conv_stem|cls_token|dist_token|reg_token|register_tokens|mask_token)\b"
)
RESIDUAL = ".residual."  # convolutions that ViTDet adds to blocks, which no pre-training has seen


def compute_layer_factors(
    names: Iterable[str], decay: float, top: str = NORM, full_blocks: int = 0
) -> dict[str, float]:
    """Compute the factor of each weight's learning rate: decay ** (layers above the weight's layer).

    The embeddings are layer 0, the n blocks are 1 to n, everything else, as the last norm, is layer n + 1, as in
    `detectron2.modeling.backbone.vit.get_vit_lr_decay_rate` and `timm.optim.param_groups_layer_decay`. A stage has its
    downsampling in the layer of its first block if it comes before that (timm), otherwise of its last one (Swin).

    With the top "block", the last block has the factor 1 too, block i decay ** (n - i), and the embeddings have the
    factor of the first block, as in EoMT (Kerssies et al. 2025; training/lightning_module.py).

    Args:
        names: of all weights of the model, in its order. Those outside of "backbone." have the factor 1.
        decay: in (0, 1]; 1: all factors are 1.
        top: "norm" or "block": the lowest layer whose factor is 1.
        full_blocks: so many last blocks have the factor 1.

    Returns:
        Name -> factor.

    Raises:
        ConfigError: the decay or full_blocks is out of range, the top is unknown, or the backbone has no blocks.
    """
    names = [*names]
    if top not in TOPS:
        raise ConfigError(f"SOLVER.LAYER_DECAY_TOP {top!r} is unknown", remedy=f"choose one of {', '.join(TOPS)}")
    if not 0 < decay <= 1:
        raise ConfigError(f"expected SOLVER.LAYER_DECAY in (0, 1], got {decay}", remedy="0.7 to 0.9 are usual; 1: none")
    if decay == 1:
        return dict.fromkeys(names, 1.0)
    layers: dict[str, int] = {}  # block -> its number
    last_of_stage: dict[str, int] = {}
    first_of_stage: dict[str, int] = {}  # only of stages with weights before their first block
    for name in names:
        if name.startswith(BACKBONE) and (block := BLOCK.match(name)):
            number = layers.setdefault(block[0], len(layers) + 1)
            last_of_stage[block["stage"]] = number
        elif (stage := STAGE.match(name)) and stage[0] not in last_of_stage:
            first_of_stage[stage[0]] = len(layers) + 1
    if not layers:
        problem = (
            f"SOLVER.LAYER_DECAY {decay} needs a transformer with weights named blocks.0 and so on in its backbone"
        )
        raise ConfigError(problem, remedy="set it to 1.0, or choose SOLVER.BACKBONE_MULTIPLIER")
    blocks = len(layers)
    if not 0 <= full_blocks <= blocks:
        problem = f"expected SOLVER.LAYER_DECAY_FULL_BLOCKS from 0 to the {blocks} blocks of the backbone"
        raise ConfigError(f"{problem}, got {full_blocks}")
    last = blocks + 1

    def find_layer(name: str) -> int:
        if not name.startswith(BACKBONE) or RESIDUAL in name:
            return last
        if block := BLOCK.match(name):
            return layers[block[0]]
        if stage := STAGE.match(name):
            return first_of_stage.get(stage[0], last_of_stage.get(stage[0], last))
        return 0 if EMBEDDING.search(name) else last

    def find_exponent(layer: int) -> int:
        if layer > blocks - full_blocks:
            return 0
        return last - layer if top == NORM else blocks - max(layer, 1)

    return {name: decay ** find_exponent(find_layer(name)) for name in names}
