CONFIG = "configs/toy/panoptic_rcnn_R18_FPN.yaml"
