"""Meta-architectures, one file each; importing this package registers them and their specs."""

from segkit.modeling.meta_arch import detectron2
from segkit.modeling.meta_arch.classical_segmentor import ClassicalSegmentor
from segkit.modeling.meta_arch.eomt import EoMT
from segkit.modeling.meta_arch.mask2former import Mask2Former
from segkit.modeling.meta_arch.panoptic_deeplab import PanopticDeepLab
from segkit.modeling.meta_arch.panoptic_rcnn import PanopticRCNN
from segkit.modeling.meta_arch.watershed_segmentor import WatershedSegmentor

__all__ = [
    "ClassicalSegmentor",
    "EoMT",
    "Mask2Former",
    "PanopticDeepLab",
    "PanopticRCNN",
    "WatershedSegmentor",
    "detectron2",
]
