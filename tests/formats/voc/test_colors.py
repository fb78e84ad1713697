"""labelmap.txt of CVAT's "Segmentation mask 1.1" and Datumaro: colours in place of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segkit.formats import voc
from segkit.formats.voc import VOCReader
from segkit.structures import Segment
from segkit.utils.errors import DatasetError
from tests.helpers.voc_tree import store_image, store_labels, store_set

LEAF, DOG, BLACK, VOID = (48, 112, 32), (176, 112, 32), (0, 0, 0), (224, 224, 192)
LABEL_MAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ndog: big:176,112,32::\nleaf:48,112,32::\n"


def store_colors(path: Path, colors: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(colors, dtype=np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two leaves, of the palette's colours 1 and 3, a dog of no colour in the palette, background and void."""
    (tmp_path / "labelmap.txt").write_text(LABEL_MAP)
    store_colors(tmp_path / "SegmentationClass/a.png", [[LEAF, LEAF, BLACK], [DOG, BLACK, VOID]])
    store_colors(tmp_path / "SegmentationObject/a.png", [[(128, 128, 0), (128, 0, 0), BLACK], [(9, 9, 9), BLACK, VOID]])
    store_image(tmp_path / "JPEGImages/a.jpg", (2, 3))
    store_set(tmp_path, "a\n", "default")
    return tmp_path


def test_colours_become_labels(root: Path) -> None:
    reader = VOCReader(root, "default")
    assert [(c.category_id, c.name, c.isthing, c.color) for c in reader.categories.categories] == [
        (0, "background", False, BLACK),
        (1, "dog: big", True, DOG),
        (2, "leaf", True, LEAF),
    ]
    segmentation = reader.read_segmentation(reader.images[0])
    assert segmentation.segment_ids.tolist() == [[2, 1, 255], [3, 255, 0]]
    assert segmentation.segments == (
        Segment(1, 2, True, 1),
        Segment(2, 2, True, 1),
        Segment(3, 1, True, 1),
        Segment(255, 0, False, 2),
    )


def test_classes_without_objects_and_palettes(root: Path) -> None:
    """The palette's colours count, not its indices."""
    reader = VOCReader(root, "default", objects=None)
    assert reader.read_segmentation(reader.images[0]).segment_ids.tolist() == [[2, 2, 255], [1, 255, 0]]
    image = Image.fromarray(np.array([[7, 7, 0], [5, 0, 9]], dtype=np.uint8))
    palette = np.zeros((256, 3), dtype=np.uint8)
    palette[[7, 5, 9]] = LEAF, DOG, VOID
    image.putpalette(palette.tobytes())
    image.save(root / "SegmentationClass/a.png")
    assert reader.read_segmentation(reader.images[0]).segment_ids.tolist() == [[2, 2, 255], [1, 255, 0]]


def test_grey_values_are_labels(root: Path) -> None:
    Image.fromarray(np.array([[2, 2, 0], [1, 0, 255]], dtype=np.uint8)).save(root / "SegmentationClass/a.png")
    Image.fromarray(np.array([[2, 1, 0], [3, 0, 255]], dtype=np.uint8)).save(root / "SegmentationObject/a.png")
    reader = VOCReader(root, "default")
    assert reader.read_segmentation(reader.images[0]).segment_ids.tolist() == [[2, 1, 255], [3, 255, 0]]


def test_classes_without_colour_have_those_of_voc(root: Path) -> None:
    """The lines are the labels; a class `ignored` is void."""
    (root / "labelmap.txt").write_text("background:::\nleaf:::\ndog:::\nignored:1,2,3::\n")
    palette = voc.compute_color_map()
    store_colors(root / "SegmentationClass/a.png", [[palette[1], palette[1], BLACK], [palette[2], BLACK, (1, 2, 3)]])
    reader = VOCReader(root, "default")
    assert [c.name for c in reader.categories.categories] == ["background", "leaf", "dog"]
    assert reader.read_segmentation(reader.images[0]).segment_ids.tolist() == [[2, 1, 255], [3, 255, 0]]


def test_named_classes_need_labels(root: Path) -> None:
    """They stand for the values, as without labelmap.txt."""
    store_labels(root / "SegmentationClass/a.png", [[1, 1, 0], [2, 0, 255]])
    store_labels(root / "SegmentationObject/a.png", [[2, 1, 0], [3, 0, 255]])
    reader = VOCReader(root, "default", classes=["leaf", "dog"])
    assert reader.read_segmentation(reader.images[0]).segment_ids.tolist() == [[2, 1, 255], [3, 255, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("leaf", "expected lines of name:red,green,blue:parts:actions, got 'leaf'"),
        ("leaf:1,2::", "expected lines of name"),
        ("leaf:1,2,256::", "expected lines of name"),
        ("leaf:1,2,x,3::", "expected lines of name"),
        ("leaf:1,2,3::\ndog:1,2,3::", "a name and a colour of its own for each class, got 'dog:1,2,3::'"),
        ("leaf:1,2,3::\nleaf:1,2,4::", "a name and a colour of its own"),
        ("leaf:0,0,0::", "a name and a colour of its own"),
        ("background:0,0,0::", "expected 1 to 254 classes, got 0"),
        ("\n".join(f"c{i}:{i},1,1::" for i in range(255)), "expected 1 to 254 classes, got 255"),
    ],
)
def test_invalid_label_maps(root: Path, text: str, message: str) -> None:
    (root / "labelmap.txt").write_text(text)
    with pytest.raises(DatasetError, match=f"labelmap.txt: .*{message}"):
        VOCReader(root, "default")


def test_colours_that_are_no_label(root: Path) -> None:
    reader = VOCReader(root, "default")
    store_colors(root / "SegmentationClass/a.png", [[LEAF, (1, 2, 3), BLACK], [DOG, BLACK, VOID]])
    with pytest.raises(
        DatasetError, match=r"expected the colours of labelmap\.txt, got \(1, 2, 3\); add their classes"
    ):
        reader.read_segmentation(reader.images[0])


def test_more_objects_than_labels(root: Path) -> None:
    """256 objects of a pixel each, and one of background: 255 stands for the background, so objects go on at 256."""
    numbers = np.arange(257, dtype=np.uint16)
    colors = np.stack([numbers // 2, numbers % 2, np.full(257, 3)], axis=1)[None]
    colors[0, 256] = BLACK
    store_colors(root / "SegmentationObject/a.png", colors)
    store_colors(root / "SegmentationClass/a.png", [[LEAF] * 256 + [BLACK]])
    store_image(root / "JPEGImages/a.jpg", (1, 257))
    reader = VOCReader(root, "default")
    segmentation = reader.read_segmentation(reader.images[0])
    assert segmentation.segments == (
        *(Segment(i, 2, True, 1) for i in range(1, 258) if i != 255),
        Segment(255, 0, False, 1),
    )
    assert sorted(segmentation.segment_ids[0, :256]) == [i for i in range(1, 258) if i != 255]
    assert segmentation.segment_ids[0, 256] == 255


def test_an_image_in_place_of_objects(root: Path) -> None:
    pixels = np.arange(10_001, dtype=np.int32)[None]
    store_colors(root / "SegmentationObject/a.png", np.stack([pixels % 256, pixels // 256, pixels * 0 + 9], axis=-1))
    store_colors(root / "SegmentationClass/a.png", np.full((1, 10_001, 3), LEAF))
    store_image(root / "JPEGImages/a.jpg", (1, 10_001))
    reader = VOCReader(root, "default")
    with pytest.raises(
        DatasetError, match="expected a colour for each object, got 10001 colours; is it a PNG of objects"
    ):
        reader.read_segmentation(reader.images[0])
