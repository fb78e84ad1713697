"""Meta-architectures, one file each; importing this package registers them."""

from segkit.modeling.meta_arch.panoptic_rcnn import PanopticRCNN

__all__ = ["PanopticRCNN"]
