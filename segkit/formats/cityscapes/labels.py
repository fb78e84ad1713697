"""Cityscapes' labels: ids, names, train ids and colours, as in cityscapesscripts' helpers/labels.py.

See github.com/mcordts/cityscapesScripts. The comments of this package name files of
cityscapesscripts.
"""

from __future__ import annotations

from typing import NamedTuple

from segkit.structures import Category, CategorySet


class Label(NamedTuple):
    """A row of helpers/labels.py.

    Attributes:
        label_id: Value in *_labelIds.png, 0..33; -1 for a label that is never drawn.
        name: Name of the class.
        train_id: Value in *_labelTrainIds.png, 0..18; 255 or -1 for a class that a network does not learn.
        has_instances: Whether the class is a thing.
        ignored: Whether the evaluation leaves the class out.
        color: RGB, 0..255.
    """

    label_id: int
    name: str
    train_id: int
    has_instances: bool
    ignored: bool
    color: tuple[int, int, int]


LABELS = (
    Label(0, "unlabeled", 255, False, True, (0, 0, 0)),
    Label(1, "ego vehicle", 255, False, True, (0, 0, 0)),
    Label(2, "rectification border", 255, False, True, (0, 0, 0)),
    Label(3, "out of roi", 255, False, True, (0, 0, 0)),
    Label(4, "static", 255, False, True, (0, 0, 0)),
    Label(5, "dynamic", 255, False, True, (111, 74, 0)),
    Label(6, "ground", 255, False, True, (81, 0, 81)),
    Label(7, "road", 0, False, False, (128, 64, 128)),
    Label(8, "sidewalk", 1, False, False, (244, 35, 232)),
    Label(9, "parking", 255, False, True, (250, 170, 160)),
    Label(10, "rail track", 255, False, True, (230, 150, 140)),
    Label(11, "building", 2, False, False, (70, 70, 70)),
    Label(12, "wall", 3, False, False, (102, 102, 156)),
    Label(13, "fence", 4, False, False, (190, 153, 153)),
    Label(14, "guard rail", 255, False, True, (180, 165, 180)),
    Label(15, "bridge", 255, False, True, (150, 100, 100)),
    Label(16, "tunnel", 255, False, True, (150, 120, 90)),
    Label(17, "pole", 5, False, False, (153, 153, 153)),
    Label(18, "polegroup", 255, False, True, (153, 153, 153)),
    Label(19, "traffic light", 6, False, False, (250, 170, 30)),
    Label(20, "traffic sign", 7, False, False, (220, 220, 0)),
    Label(21, "vegetation", 8, False, False, (107, 142, 35)),
    Label(22, "terrain", 9, False, False, (152, 251, 152)),
    Label(23, "sky", 10, False, False, (70, 130, 180)),
    Label(24, "person", 11, True, False, (220, 20, 60)),
    Label(25, "rider", 12, True, False, (255, 0, 0)),
    Label(26, "car", 13, True, False, (0, 0, 142)),
    Label(27, "truck", 14, True, False, (0, 0, 70)),
    Label(28, "bus", 15, True, False, (0, 60, 100)),
    Label(29, "caravan", 255, True, True, (0, 0, 90)),
    Label(30, "trailer", 255, True, True, (0, 0, 110)),
    Label(31, "train", 16, True, False, (0, 80, 100)),
    Label(32, "motorcycle", 17, True, False, (0, 0, 230)),
    Label(33, "bicycle", 18, True, False, (119, 11, 32)),
    Label(-1, "license plate", -1, False, True, (0, 0, 142)),
)
LAST_LABEL_ID = LABELS[-2].label_id  # the last row, license plate, has no id
CATEGORIES = CategorySet([Category(x.label_id, x.name, x.has_instances, x.color) for x in LABELS if not x.ignored])
LABEL_ID_BY_TRAIN_ID = {x.train_id: x.label_id for x in LABELS if not x.ignored}
