"""The arguments of a training of two iterations on toy scenes."""

from __future__ import annotations

from pathlib import Path

CONFIG = "configs/toy/panoptic_rcnn_R18_FPN.yaml"
SMALL = """DATASETS.TRAIN ('t_toy',) DATASETS.TEST ('t_toy',) DATASETS.CHECK_IMAGES 2 SOLVER.IMS_PER_BATCH 2 SEED 3
    SOLVER.MAX_ITER 2 DATALOADER.NUM_WORKERS 0 TEST.EVAL_PERIOD 0 TEST.EXPORT False MODEL.FPN.OUT_CHANNELS 16
    MODEL.SEM_SEG_HEAD.CONVS_DIM 16 MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.ROI_MASK_HEAD.CONV_DIM 16"""


def build_arguments(toy_folder: Path, output: Path, *options: str) -> list[str]:
    custom = [
        {"name": "t_toy", "panoptic_json": f"{toy_folder}/panoptic.json", "panoptic_root": f"{toy_folder}/panoptic"}
    ]
    words = ["--config-file", CONFIG, *SMALL.split(), "DATASETS.CUSTOM", str(custom), "OUTPUT_DIR", str(output)]
    return [*words, *options]
