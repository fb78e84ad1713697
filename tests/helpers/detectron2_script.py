"""A user's script for Detectron2, with one import and one call of segkit: `python detectron2_script.py SCENES OUTPUT`.

SCENES is a folder of `segkit data toy`. Nothing else of the tests is imported: it runs with an installed package.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from detectron2 import model_zoo
from detectron2.config import CfgNode, LazyConfig, get_cfg, instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultPredictor, DefaultTrainer
from detectron2.modeling import build_model
from detectron2.structures import BoxMode
from PIL import Image

from segkit import add_segkit_config

ZOO_CONFIG = "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"
SMALL = """MODEL.DEVICE cpu MODEL.RESNETS.DEPTH 18 MODEL.RESNETS.RES2_OUT_CHANNELS 64 MODEL.FPN.OUT_CHANNELS 16
    MODEL.ROI_BOX_HEAD.FC_DIM 16 MODEL.ROI_MASK_HEAD.CONV_DIM 16 MODEL.SEM_SEG_HEAD.CONVS_DIM 32
    INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 SOLVER.IMS_PER_BATCH 2 SOLVER.MAX_ITER 2 SOLVER.BASE_LR 0.001
    DATALOADER.NUM_WORKERS 0"""


def main(scenes: Path, output: Path) -> None:
    names = register(scenes, output)
    cfg = get_cfg()
    add_segkit_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file(ZOO_CONFIG))
    cfg.MODEL.META_ARCHITECTURE = "PanopticRCNN"
    cfg.MODEL.WEIGHTS = ""
    cfg.merge_from_list(SMALL.split())
    model = build_model(cfg)
    print(type(model).__name__, *model.sem_seg_head.predictor.weight.shape)

    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = names
    train_and_predict(cfg, output)
    LazyConfig.save(build_lazy_config(), str(output / "lazy.yaml"))
    lazy = LazyConfig.load(str(output / "lazy.yaml"))
    print(type(instantiate(lazy.model)).__name__, "from a LazyConfig")


def register(scenes: Path, output: Path) -> tuple[int, int]:
    """Register the scenes as the tutorial of Detectron2 does; the numbers of things and of semantic channels."""
    content = json.loads((scenes / "instances.json").read_text(encoding="utf-8"))
    panoptic = json.loads((scenes / "panoptic.json").read_text(encoding="utf-8"))
    things = [category["name"] for category in content["categories"]]
    stuff = ["things", *(category["name"] for category in panoptic["categories"] if not category["isthing"])]
    indices = {category["id"]: index for index, category in enumerate(content["categories"])}

    def load() -> list[dict[str, Any]]:
        records = []
        for image in content["images"]:
            annotations = [
                {
                    "bbox": annotation["bbox"],
                    "bbox_mode": BoxMode.XYWH_ABS,
                    "category_id": indices[annotation["category_id"]],
                    "segmentation": annotation["segmentation"],
                }
                for annotation in content["annotations"]
                if annotation["image_id"] == image["id"]
            ]
            labels = output / "labels" / f"{image['id']}.png"
            labels.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((image["height"], image["width"]), 1, dtype=np.uint8)).save(labels)
            record = {"file_name": str(scenes / "images" / image["file_name"]), "image_id": image["id"]}
            size = {"height": image["height"], "width": image["width"]}
            records.append({**record, **size, "annotations": annotations, "sem_seg_file_name": str(labels)})
        return records

    DatasetCatalog.register("my_scenes", load)
    MetadataCatalog.get("my_scenes").set(thing_classes=things, stuff_classes=stuff)
    return len(things), len(stuff)


def train_and_predict(cfg: CfgNode, output: Path) -> None:
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST, cfg.OUTPUT_DIR = ("my_scenes",), (), str(output)
    cfg.INPUT.MASK_FORMAT = "bitmask"  # the toy masks are RLE
    trainer = DefaultTrainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    cfg.MODEL.WEIGHTS = str(output / "model_final.pth")
    record = DatasetCatalog.get("my_scenes")[0]
    image = np.asarray(Image.open(record["file_name"]).convert("RGB"))[:, :, ::-1]
    segment_ids, segments_info = DefaultPredictor(cfg)(image)["panoptic_seg"]
    print("predicted", *segment_ids.shape, len(segments_info))


def build_lazy_config() -> Any:
    """Detectron2's Panoptic FPN with another class, as its users write it."""
    config = model_zoo.get_config("common/models/panoptic_fpn.py")
    config.model._target_ = "segkit.modeling.meta_arch.panoptic_rcnn.PanopticRCNN"
    return config


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
