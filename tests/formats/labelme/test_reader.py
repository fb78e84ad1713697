"""The labelme reader, on JSON files written by hand."""

from __future__ import annotations

import base64
import json
import math
import os
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageDraw

from segkit.formats.base import DatasetImage
from segkit.formats.coco import RELATIVE
from segkit.formats.labelme import LabelmeReader
from segkit.formats.labelme.shapes import Shape, parse_shape, rasterise
from segkit.structures import PanopticSegmentation, Segment, rle_to_mask
from segkit.utils.errors import ConfigError, DatasetError
from tests.helpers.coco_samples import JUNK, spoil

SIZE_HW = (4, 6)


def box(label: str, left: float, top: float, right: float, bottom: float, **fields: object) -> dict:
    """A rectangle over the pixels from (left, top) up to (right, bottom), which are beyond it, as in a slice."""
    points = [[left, top], [right - 1, bottom - 1]]  # labelme's rectangles hold the pixels of both corners
    return {"label": label, "points": points, "shape_type": "rectangle", **fields}


def store(root: Path, shapes: object, name: str = "a", **fields: object) -> Path:
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"{Path(name).name}.png",
        "imageData": None,
        "imageHeight": SIZE_HW[0],
        "imageWidth": SIZE_HW[1],
        **fields,
    }
    path = root / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({key: value for key, value in content.items() if value != "absent"}))
    Image.new("RGB", SIZE_HW[::-1]).save(root / f"{name}.png")
    return path


def encode_png(mask: list[list[int]] | np.ndarray, mode: str = "L") -> str:
    file = BytesIO()
    Image.fromarray(np.array(mask, dtype=np.uint8)).convert(mode).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def read_only_image(reader: LabelmeReader) -> PanopticSegmentation:
    assert len(reader.images) == 1
    return reader.read_segmentation(reader.images[0])


def test_later_shapes_occlude_earlier_ones_and_annotations_are_whole(tmp_path: Path) -> None:
    store(tmp_path, [box("dog", 0, 0, 4, 2), box("cat", 2, 1, 6, 3), box("dog", 5, 0, 6, 4)])
    reader = LabelmeReader(tmp_path)
    assert [(c.category_id, c.name, c.isthing) for c in reader.categories.categories] == [
        (1, "cat", True),
        (2, "dog", True),
    ]
    assert reader.images == (DatasetImage("a", "a.png", SIZE_HW),)
    segmentation = read_only_image(reader)
    expected = [[1, 1, 1, 1, 0, 3], [1, 1, 2, 2, 2, 3], [0, 0, 2, 2, 2, 3], [0, 0, 0, 0, 0, 3]]
    np.testing.assert_array_equal(segmentation.segment_ids, expected)
    assert segmentation.segments == (Segment(1, 2, True, 6), Segment(2, 1, True, 6), Segment(3, 2, True, 4))
    whole = reader.read_annotations(reader.images[0])
    assert [(a["category_id"], a["area"], a["bbox"]) for a in whole] == [
        (2, 8, [0, 0, 4, 2]),
        (1, 8, [2, 1, 4, 2]),
        (2, 4, [5, 0, 1, 4]),
    ]
    assert rle_to_mask(whole[1]["segmentation"])[1:3, 2:6].all()
    assert {a["image_id"] for a in whole} == {"a"}
    assert {a["iscrowd"] for a in whole} == {0}


def test_a_hidden_object_is_in_the_annotations_only(tmp_path: Path) -> None:
    store(tmp_path, [box("dog", 0, 0, 2, 2), box("cat", 0, 0, 3, 3)])
    reader = LabelmeReader(tmp_path)
    assert read_only_image(reader).segments == (Segment(2, 1, True, 9),)
    assert [a["area"] for a in reader.read_annotations(reader.images[0])] == [4, 9]


def test_groups_join_shapes_of_one_label(tmp_path: Path) -> None:
    store(
        tmp_path,
        [
            box("dog", 0, 0, 1, 1, group_id=7),
            box("cat", 1, 0, 2, 1, group_id=7),
            box("dog", 2, 0, 4, 1, group_id=7),
            box("dog", 4, 0, 5, 1, group_id=0),
            box("dog", 5, 0, 6, 1, group_id=None),
        ],
    )
    reader = LabelmeReader(tmp_path)
    np.testing.assert_array_equal(read_only_image(reader).segment_ids[0], [1, 2, 1, 1, 3, 4])
    assert [a["area"] for a in reader.read_annotations(reader.images[0])] == [3, 1, 1, 1]


def test_stuff_ignored_labels_and_crowds(tmp_path: Path) -> None:
    shapes = [
        box("sky", 0, 0, 2, 1),
        box("dog", 1, 0, 4, 1, flags={"iscrowd": True, "old": False}),
        box("dirt", 2, 0, 3, 1),
        box("sky", 5, 0, 6, 1, group_id=3),
    ]
    store(tmp_path, shapes)
    reader = LabelmeReader(tmp_path, stuff=["sky", "water"], ignore=["dirt"])
    assert [(c.name, c.isthing) for c in reader.categories.categories] == [
        ("dog", True),
        ("sky", False),
        ("water", False),
    ]
    segmentation = read_only_image(reader)
    # The ignored shape covers the dog: void. The two shapes of sky are one segment.
    np.testing.assert_array_equal(segmentation.segment_ids[0], [1, 2, 0, 2, 0, 1])
    assert segmentation.segments == (Segment(1, 2, False, 2), Segment(2, 1, True, 2, iscrowd=True))
    assert [(a["area"], a["iscrowd"]) for a in reader.read_annotations(reader.images[0])] == [(3, 1)]
    reader_of_named_labels = LabelmeReader(tmp_path, things=["dog", "zebra"], stuff=["sky"], ignore=["dirt"])
    assert [c.name for c in reader_of_named_labels.categories.categories] == ["dog", "sky", "zebra"]
    with pytest.raises(DatasetError, match=r"a\.json, shape 2: expected a label among 'dog', 'sky', got 'dirt'; name"):
        LabelmeReader(tmp_path, things=["dog"], stuff=["sky"])


@pytest.mark.parametrize("shape_type", ["polygon", None, "absent"])
def test_polygons_of_older_versions_are_rasterised(tmp_path: Path, shape_type: str | None) -> None:
    entry = {"label": "dog", "points": [[1.2, 1.9], [3.5, 1.5], [3.0, 2.9]], "shape_type": shape_type}
    store(tmp_path, [{key: value for key, value in entry.items() if value != "absent"}])
    # Pixels (1, 1), (3, 1) and (3, 2): coordinates are cut to whole numbers. The outline runs over (2, 1).
    expected = [[0] * 6, [0, 1, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0], [0] * 6]
    np.testing.assert_array_equal(read_only_image(LabelmeReader(tmp_path)).segment_ids, expected)


# What labelme/utils/shape.py of labelme 6.3.1 draws, one word for each row.
LABELME_DRAWS = [
    (
        "polygon",
        [[0.3, 0.2], [5.6, 1.1], [7.5, 5.9], [1.2, 3.4]],
        "#....... ######.. .#####.. .######. ....###. .......#",
    ),
    ("polygon", [[-2.5, 1.5], [3.5, 0.5], [4.5, 4.5]], "...#.... ####.... ####.... ..###... ....#... ........"),
    ("polygon", [[1.0, 1.0], [4.0, 1.0], [6.0, 1.0]], "........ .######. ........ ........ ........ ........"),
    ("rectangle", [[5.5, 4.5], [2.5, 1.5]], "........ ..####.. ..####.. ..####.. ..####.. ........"),
    ("circle", [[3.5, 2.5], [5.2, 2.5]], "..###... .#####.. .#####.. .#####.. ..###... ........"),
    ("circle", [[3, 2], [3, 2]], "........ ........ ........ ........ ........ ........"),
    (
        "oriented_rectangle",
        [[3, 0.5], [6.5, 2.5], [4, 5.5], [0.5, 3]],
        "...#.... ..###... .######. ######.. ..####.. ....#...",
    ),
    ("line", [[1, 1], [6, 4]], "...##### ..###### .####### ######## ######## #######."),
    ("linestrip", [[0, 5], [3.5, 2.5], [7, 5]], "#....### ##...### ###.#### ######## ######## ########"),
    ("point", [[1.5, 1.5]], "#######. #######. #######. #######. ######.. #####..."),
]


@pytest.mark.parametrize(("kind", "points", "rows"), LABELME_DRAWS)
def test_shapes_have_the_pixels_of_labelmes_own_conversion(kind: str, points: list, rows: str) -> None:
    shape = parse_shape({"label": "dog", "points": points, "shape_type": kind}, "a.json", line_width=10)
    assert isinstance(shape, Shape)
    mask = rle_to_mask(rasterise(shape, (6, 8), line_width=10))
    assert " ".join("".join(".#"[int(pixel)] for pixel in row) for row in mask) == rows


@given(
    kind=st.sampled_from(["polygon", "linestrip", "circle", "rectangle"]),
    halves=st.lists(st.tuples(st.integers(-20, 100), st.integers(-20, 100)), min_size=3, max_size=6),
)
def test_shapes_are_drawn_as_on_a_canvas_of_the_whole_image(kind: str, halves: list[tuple[int, int]]) -> None:
    """Only the part of the canvas in the box of a shape is kept: that must not change Pillow's rounding."""
    points = [(x / 2, y / 2) for x, y in (halves[:2] if kind in ("circle", "rectangle") else halves)]
    canvas = Image.new("L", (40, 30))
    draw = ImageDraw.Draw(canvas)
    (x, y), (edge_x, edge_y) = points[:2]
    if kind == "polygon":
        draw.polygon(points, outline=1, fill=1)
    elif kind == "rectangle":
        draw.rectangle([min(x, edge_x), min(y, edge_y), max(x, edge_x), max(y, edge_y)], outline=1, fill=1)
    elif kind == "circle":
        radius = math.sqrt((x - edge_x) ** 2 + (y - edge_y) ** 2)
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], outline=1, fill=1)
    else:
        draw.line(points, fill=1, width=3)
    shape = parse_shape({"label": "dog", "points": [[*p] for p in points], "shape_type": kind}, "a.json", line_width=3)
    assert isinstance(shape, Shape)
    np.testing.assert_array_equal(rle_to_mask(rasterise(shape, (30, 40), line_width=3)), np.asarray(canvas) != 0)


def test_rectangles_of_other_tools_and_masks_are_rasterised(tmp_path: Path) -> None:
    def read_shape(entry: dict) -> list[list[int]]:
        store(tmp_path, [{"label": "dog", **entry}])
        return read_only_image(LabelmeReader(tmp_path)).segment_ids.tolist()

    core = [[0] * 6, [0, 1, 1, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0] * 6]
    # Corners in any order; four of them.
    assert read_shape({"shape_type": "rectangle", "points": [[2, 2], [1, 1]]}) == core
    for kind in ("rectangle", "oriented_rectangle", "rotation"):
        assert read_shape({"shape_type": kind, "points": [[1, 1], [2, 1], [2, 2], [1, 2]]}) == core
    # Far larger than the image.
    assert read_shape({"shape_type": "circle", "points": [[3, 2], [9000, 2]]}) == [[1] * 6] * 4
    assert read_shape({"shape_type": "circle", "points": [[90, 90], [91, 90]]}) == [[0] * 6] * 4
    # A mask's corners are pixels, both inside: 3 x 2 pixels. A mask that was moved has fractions.
    mask = [[1, 0, 1], [0, 1, 0]]
    expected = [[0] * 6, [0, 0, 1, 0, 1, 0], [0, 0, 0, 1, 0, 0], [0] * 6]
    for mode, value, moved in (("L", 1, 0.0), ("1", 255, 0.7), ("P", 255, 0.2)):
        content = encode_png(np.array(mask) * value, mode)
        points = [[2.0 + moved, 1.0 + moved], [4.0 + moved, 2.0 + moved]]
        assert read_shape({"shape_type": "mask", "points": points, "mask": content}) == expected
    # Pixels outside the image are cut off.
    for corner, seen in (((-1, -1), [[1, 0], [0, 0]]), ((5, 3), [[0, 0], [0, 1]])):
        entry = {"points": [[*corner], [corner[0] + 2, corner[1] + 1]], "mask": encode_png(mask), "shape_type": "mask"}
        pixels = np.array(read_shape(entry))
        assert (pixels[:2, :2] if corner[0] < 0 else pixels[2:, 4:]).tolist() == seen
        assert pixels.sum() == 1
    assert not np.any(read_shape({"points": [[50, 50], [52, 51]], "mask": encode_png(mask), "shape_type": "mask"}))


def get_issues(root: Path) -> list[tuple[str, str, str]]:
    issues: list[tuple[str, str, str]] = []
    reader = LabelmeReader(root)
    for image in reader.images:
        reader.check_annotation(image, lambda code, error: issues.append((code, str(error.where), error.problem)))
    return issues


def test_shapes_outside_the_image_without_area_or_drawn_twice_are_reported(tmp_path: Path) -> None:
    def polygon(*points: tuple[float, float]) -> dict:
        return {"label": "dog", "points": [[*point] for point in points], "shape_type": "polygon"}

    shapes = [
        box("dog", 0, 0, 6, 4),
        polygon((0, 0), (6, 0), (6, 4), (0, 4)),  # its corners are those of the image
        polygon((10, 10), (12, 10), (12, 12)),
        polygon((3, 1), (9, 1), (9, 3)),
        polygon((1, 1), (2, 1), (4, 1)),
        {"label": "dog", "points": [[2, 2], [2, 2]], "shape_type": "circle"},
        {"label": "dog", "points": [[5, 2], [9, 2]], "shape_type": "circle"},  # cut off, which is usual
        {"label": "dog", "points": [[0, 0], [0, 0]], "shape_type": "mask", "mask": encode_png([[0]])},
        box("dog", 0, 0, 6, 4, group_id=3),
        box("cat", 0, 0, 6, 4),
        polygon((0.1, 0.2), (0.9, 0.2), (0.9, 1)),
    ]
    path = store(tmp_path, shapes)
    image = "the image of 4 x 6 (height x width)"
    assert get_issues(tmp_path) == [
        ("segment-empty", f"{path}, shape 2 ('dog')", f"it is outside {image}"),
        ("mask-outside", f"{path}, shape 3 ('dog')", f"it reaches 3 pixels beyond {image}"),
        ("mask-flat", f"{path}, shape 4 ('dog')", "a polygon without area, whose outline has 4 pixels"),
        ("segment-empty", f"{path}, shape 5 ('dog')", "a circle without area has no pixel"),
        ("segment-empty", f"{path}, shape 7 ('dog')", f"its mask has no pixel in {image}"),
        ("mask-twice", f"{path}, shape 8 ('dog')", "it is equal to a.json, shape 0"),
        ("coordinates-relative", f"{path}, shape 10 ('dog')", RELATIVE),
    ]
    store(tmp_path, shapes[:2])
    assert get_issues(tmp_path) == []


def encode_image(pixels: np.ndarray, kind: str = "PNG", **options: object) -> str:
    file = BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return base64.b64encode(file.getvalue()).decode()


@pytest.mark.parametrize("image_path", ["gone.jpg", "../../a.jpg", "C:\\scans\\a.jpg", "", None])
def test_an_image_that_is_in_the_json_only_is_read(tmp_path: Path, image_path: str | None) -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    store(tmp_path, [box("dog", 0, 0, 1, 1)], "x/a", imagePath=image_path, imageData=encode_image(pixels))
    (tmp_path / "x/a.png").unlink()
    reader = LabelmeReader(tmp_path)
    assert reader.images == (DatasetImage("x/a", "x/a.png", SIZE_HW),)
    np.testing.assert_array_equal(reader.read_image(reader.images[0]), pixels)
    # A file of this name is another image.
    Image.new("RGB", (9, 9)).save(tmp_path / "x/a.png")
    reader = LabelmeReader(tmp_path)
    assert reader.images == (DatasetImage("x/a", "x/a_1.png", SIZE_HW),)
    np.testing.assert_array_equal(reader.read_image(reader.images[0]), pixels)


def test_images_in_a_json_are_not_rotated_and_may_be_deep(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    pixels = np.zeros((*SIZE_HW, 3), dtype=np.uint8)
    store(tmp_path, [], "a", imagePath="gone.jpg", imageData=encode_image(pixels, "JPEG", exif=exif))
    deep = np.linspace(0, 60000, 24).astype(np.uint16).reshape(SIZE_HW)
    store(tmp_path, [], "b", imagePath="gone.png", imageData=encode_image(deep))
    reader = LabelmeReader(tmp_path, things=["dog"])
    assert reader.read_image(reader.images[0]).shape == (*SIZE_HW, 3)
    stretched = reader.read_image(reader.images[1])
    assert (stretched[0, 0].tolist(), stretched[-1, -1].tolist()) == ([0, 0, 0], [255, 255, 255])


def test_an_image_in_a_json_that_is_damaged_or_of_another_size_is_reported(tmp_path: Path) -> None:
    whole = encode_image(np.zeros((9, 9, 3), dtype=np.uint8))
    for number, data in enumerate(["?", "AAAA", whole[:40], whole]):
        store(tmp_path, [box("dog", 0, 0, 1, 1)], f"{number}", imagePath="gone.png", imageData=data)
    issues: list[tuple[str, str]] = []
    reader = LabelmeReader(tmp_path, on_issue=lambda code, error: issues.append((code, Path(error.where).name)))
    unreadable = [("image-unreadable", f"{number}.json") for number in range(3)]
    assert issues == [*unreadable, ("size-differs", "3.json")]
    assert reader.images == ()


def test_a_pipeline_decodes_cut_off_image_data_to_an_error(tmp_path: Path) -> None:
    data = encode_image(np.random.default_rng(0).integers(0, 255, (*SIZE_HW, 3), dtype=np.uint8))
    store(tmp_path, [box("dog", 0, 0, 1, 1)], imagePath="gone.png", imageData=data[:80])
    reader = LabelmeReader(tmp_path)
    with pytest.raises(DatasetError, match=r"a\.json: `imageData` is no image in base64"):
        reader.read_image(reader.images[0])


def test_shapes_without_area_are_skipped_and_reported(tmp_path: Path) -> None:
    points_by_type = {
        "point": [[1, 1]],
        "line": [[0, 0], [1, 1]],
        "linestrip": [[0, 0], [1, 1], [2, 0]],
        "points": [[1, 1]],
    }
    shapes_without_area = [
        {"label": f"the {kind}", "points": points, "shape_type": kind} for kind, points in points_by_type.items()
    ]
    path = store(tmp_path, [box("dog", 0, 0, 1, 1), *shapes_without_area])
    Image.new("L", (2, 2)).save(tmp_path / "undrawn.jpg")
    reader = LabelmeReader(tmp_path)
    assert reader.skipped == (
        f"{path}, shape 1: a point has no area, 'the point' is not read",
        f"{path}, shape 2: a line has no area, 'the line' is not read",
        f"{path}, shape 3: a linestrip has no area, 'the linestrip' is not read",
        f"{path}, shape 4: a points has no area, 'the points' is not read",
        f"{tmp_path}: 1 images have no JSON: 'undrawn.jpg'",
    )
    assert [c.name for c in reader.categories.categories] == ["dog"]


def test_image_paths_are_relative_to_the_json(tmp_path: Path) -> None:
    store(tmp_path, [box("dog", 0, 0, 1, 1)], "images/a", imageHeight="absent", imageWidth=None)
    json_path = tmp_path / "annotated/b.json"
    json_path.parent.mkdir()
    for image_path in ("../images/a.png", "..\\images\\a.png", "./../annotated/../images/a.png"):
        content = json.loads((tmp_path / "images/a.json").read_text())
        json_path.write_text(json.dumps({**content, "imagePath": image_path, "imageData": "A" * 1000000}))
        with pytest.raises(
            DatasetError, match=r"got annotated/b\.json and images/a\.json of images/a\.png; remove one"
        ):
            LabelmeReader(tmp_path)
    (tmp_path / "images/a.json").rename(tmp_path / "images/.a.json")
    reader = LabelmeReader(tmp_path)
    assert reader.images == (DatasetImage("annotated/b", "images/a.png", SIZE_HW),)
    assert reader.read_image(reader.images[0]).shape == (*SIZE_HW, 3)


def test_image_paths_outside_the_folder_raise_a_dataset_error(tmp_path: Path) -> None:
    root = tmp_path / "root"
    Image.new("L", SIZE_HW[::-1]).save(tmp_path / "a.png")
    for name in ("../a.png", "..\\a.png", str(tmp_path / "a.png"), "x/../../a.png", "C:\\a.png", "", ".", "a\0.png"):
        store(root, [box("dog", 0, 0, 1, 1)], imagePath=name)
        with pytest.raises(DatasetError, match=r"a\.json: expected `imagePath` to be a path inside its folder"):
            LabelmeReader(root)
    Image.new("L", SIZE_HW[::-1]).save(root / "Map.png")
    for name in ("../map.png", "C:\\map.png", "/home/map.png"):
        store(root, [box("dog", 0, 0, 1, 1)], imagePath=name)
        with pytest.raises(DatasetError, match=r"is it Map\.png\?\); write it relative to the JSON"):
            LabelmeReader(root)


def test_loops_of_symlinks_are_skipped_or_raise_a_dataset_error(tmp_path: Path) -> None:
    path = store(tmp_path, [box("dog", 0, 0, 1, 1)])
    (tmp_path / "round").symlink_to(tmp_path, target_is_directory=True)
    assert len(LabelmeReader(tmp_path).images) == 1
    path.unlink()
    path.symlink_to(path.name)
    with pytest.raises(DatasetError, match=r"a\.json: "):
        LabelmeReader(tmp_path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"label": ""}, "expected `label` to be a name, got ''"),
        ({"label": "\ud800"}, "expected `label` to be a name"),
        ({"label": None}, "expected `label` to be a string, got None"),
        ({"shape_type": "bezier2"}, "expected a shape_type among polygon, .*, got 'bezier2'; draw it as a polygon"),
        ({"shape_type": ["polygon"]}, "expected a shape_type among"),
        ({"points": [[0, 0]]}, "expected 2 to 4 points of a rectangle, got 1"),
        ({"shape_type": "polygon"}, "expected 3 or more points of a polygon, got 2"),
        ({"shape_type": "circle", "points": [[0, 0]] * 3}, "expected 2 points of a circle, got 3"),
        ({"points": [[0, 0], [1]]}, r"expected every point to be \[x, y\] in pixels, at most 1e\+06, got \[1\]"),
        ({"points": [[0, 0], [1, "2"]]}, "expected every point"),
        ({"points": [[0, 0], [1, float("nan")]]}, "expected every point"),
        ({"points": [[0, 0], [1, 10**400]]}, "expected every point"),
        ({"points": [[0, 0], [1, 2e6]]}, "expected every point"),
        (
            {"shape_type": "polygon", "points": [[-1e6, -1e6], [9e5, 9e5], [0, 9e5], [9e5, 0]]},
            r"expected an outline of at most 4e\+06 pixels, got a longer",
        ),
        ({"points": "many"}, "expected `points` to be a list"),
        ({"group_id": 1.5}, "expected `group_id` to be an integer or null, got 1.5"),
        ({"group_id": [1]}, "expected `group_id`"),
        ({"flags": {"iscrowd": 2}}, "expected `iscrowd` to be 0 or 1"),
        ({"shape_type": "circle", "points": [[0, 0], [0, 2e4]]}, "expected a circle with a radius of at most 16384"),
        ({"shape_type": "mask"}, "expected `mask` to be a string, got none"),
    ],
)
def test_the_error_names_the_invalid_shape(tmp_path: Path, entry: dict, message: str) -> None:
    store(tmp_path, [box("dog", 0, 0, 1, 1), {**box("dog", 0, 0, 1, 1), **entry}])
    with pytest.raises(DatasetError, match=rf"a\.json, shape 1: {message}"):
        LabelmeReader(tmp_path)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("?", "the mask is not a PNG in base64"),
        ("AAAA", "the mask is not a PNG in base64"),
        (encode_png([[1, 1], [1, 1]])[:60], "the mask is not a PNG in base64"),
        (encode_png([[1, 1]]), r"expected a mask of 2 x 2 pixels .*, got 2 x 1 of mode L"),
        (
            encode_png([[1, 1], [1, 1]], "RGB"),
            r"expected a mask of .* in one channel, got 2 x 2 of mode RGB; draw the mask again",
        ),
    ],
)
def test_the_error_names_the_shape_of_an_invalid_mask(tmp_path: Path, mask: str, message: str) -> None:
    store(tmp_path, [{"label": "dog", "points": [[0, 0], [1, 1]], "shape_type": "mask", "mask": mask}])
    reader = LabelmeReader(tmp_path)
    for read in (reader.read_segmentation, reader.read_annotations):
        with pytest.raises(DatasetError, match=rf"a\.json, shape 0: {message}"):
            read(reader.images[0])


def test_invalid_files_raise_a_dataset_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DatasetError, match="nowhere: no such folder"):
        LabelmeReader(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="expected labelme's JSON files, found none"):
        LabelmeReader(tmp_path)
    path = store(tmp_path, [])
    with pytest.raises(DatasetError, match="expected at least one category, got none"):
        LabelmeReader(tmp_path)
    assert LabelmeReader(tmp_path, things=["dog"]).images[0].image_id == "a"
    for content, message in (
        ("", "expected JSON, got 0 bytes"),
        ("[" * 100000, "expected JSON, got lists or objects nested too deeply"),
        ('{"a":' * 100000, "expected JSON, got lists or objects nested too deeply"),
        ("[]", "expected labelme's object with `shapes`, got a list"),
        ('{"images": []}', "expected labelme's object with `shapes`, got one with 'images'; move other files"),
        ('{"shapes": {}}', "expected `shapes` to be a list"),
        ('{"shapes": null}', "expected `shapes` to be a list"),
        ('{"shapes": []}', "expected `imagePath` to be a string, got none"),
    ):
        path.write_text(content)
        with pytest.raises(DatasetError, match=rf"a\.json: {message}"):
            LabelmeReader(tmp_path)
    path.write_text('{"shapes": [1]}')
    with pytest.raises(DatasetError, match=r"a\.json, shape 0: expected an object, got 1"):
        LabelmeReader(tmp_path)
    store(tmp_path, [], imageWidth=7)
    with pytest.raises(DatasetError, match=r"a\.json: expected `imageWidth` to be 6 pixels, as of a\.png, got 7"):
        LabelmeReader(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"a\.png: the image is missing"):
        LabelmeReader(tmp_path)
    monkeypatch.setattr("segkit.formats.labelme.files.MAX_BYTES", 10)
    with pytest.raises(DatasetError, match=r"a\.json: expected at most 10 bytes, got 123; save it without imageData"):
        LabelmeReader(tmp_path)


def read_spoiled(root: Path, seed: int, junk: object) -> bool:
    """Returns whether a JSON with one junk value is read; errors must be a DatasetError."""
    mask = {"label": "cat", "points": [[0, 0], [1, 0]], "shape_type": "mask", "mask": encode_png([[1, 1]])}
    path = store(root, [box("dog", 0, 0, 1, 1, group_id=1, flags={"iscrowd": 1}), mask])
    path.write_text(json.dumps(spoil(json.loads(path.read_text()), Random(seed).randrange, junk)))
    try:
        reader = LabelmeReader(root)
        reader.read_segmentation(reader.images[0])
        reader.read_annotations(reader.images[0])
    except DatasetError:
        return False
    return True


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), junk=st.sampled_from(JUNK))
def test_junk_values_raise_only_dataset_errors(
    tmp_path_factory: pytest.TempPathFactory, seed: int, junk: object
) -> None:
    read_spoiled(tmp_path_factory.mktemp("junk"), seed, junk)


def test_a_known_share_of_junk_is_accepted(tmp_path: Path) -> None:
    accepted = [read_spoiled(tmp_path, seed, junk) for seed in range(20) for junk in JUNK]
    assert 0.1 < sum(accepted) / len(accepted) < 0.5


def test_lines_are_drawn_on_request_only(tmp_path: Path) -> None:
    store(tmp_path, [{"label": "wire", "points": [[0, 1], [5, 1]], "shape_type": "line"}])
    reader = LabelmeReader(tmp_path, line_width=1)
    assert (read_only_image(reader).segment_ids.sum(axis=1).tolist(), reader.skipped) == ([0, 6, 0, 0], ())
    for width in (-1, 1.5, True, 5000):
        with pytest.raises(ConfigError, match=r"expected line_width to be a whole number in 0\.\.1000, got"):
            LabelmeReader(tmp_path, line_width=width)


def test_inconsistent_options_raise_a_config_error(tmp_path: Path) -> None:
    store(tmp_path, [box("dog", 0, 0, 1, 1)])
    for options, message in (
        ({"things": "dog"}, "expected things to be a list of labels, got 'dog'"),
        ({"ignore": [1]}, "expected ignore to be a list of labels"),
        ({"things": ["dog"], "stuff": ["dog"]}, "got 'dog' in two"),
        ({"stuff": ["dog"], "ignore": ["dog"]}, "got 'dog' in two"),
    ):
        with pytest.raises(ConfigError, match=message):
            LabelmeReader(tmp_path, **options)


def test_all_issues_are_reported_and_valid_images_stay(tmp_path: Path) -> None:
    dog = [box("dog", 0, 0, 1, 1)]
    for name in ("a", "cut", "deep", "far", "gone", "kind", "mad", "size", "torn", "z/last"):
        store(tmp_path, dog, name)
    (tmp_path / "cut.json").write_text('{"shapes": [')
    (tmp_path / "deep.json").write_text("[" * 100000)
    store(tmp_path, dog, "far", imagePath="../../far.png")
    (tmp_path / "gone.png").unlink()
    (tmp_path / "kind.json").write_text('{"images": []}')
    store(tmp_path, [*dog, box("dog", 0, 0, 1, float("inf"))], "mad")
    store(tmp_path, dog, "second", imagePath="a.png")
    store(tmp_path, dog, "size", imageHeight=5)
    (tmp_path / "torn.png").write_bytes(b"torn")
    unknown = [box(label, 0, 0, 1, 1) for label in ("cow", "dog", "ant", "cow", "sky")]
    store(tmp_path, unknown, "unknown")
    issues: list[tuple[str, str]] = []

    def on_issue(code: str, error: DatasetError) -> None:
        issues.append((code, str(error).removeprefix(f"{tmp_path}/").split(": ")[0]))

    reader = LabelmeReader(tmp_path, things=["dog"], ignore=["sky"], on_issue=on_issue)
    assert issues == [
        ("json-unreadable", "cut.json"),
        ("json-unreadable", "deep.json"),
        ("name-outside", "far.json"),
        ("json-kind", "kind.json"),
        ("annotation-unreadable", "mad.json, shape 1"),
        ("annotation-twice", "second.json"),
        ("image-missing", "gone.png"),
        ("size-differs", "size.json"),
        ("image-unreadable", "torn.png"),
        ("category-unknown", "unknown.json, shape 0"),
        ("category-unknown", "unknown.json, shape 2"),
    ]
    assert [image.image_id for image in reader.images] == ["a", "z/last"]
    for image in reader.images:
        assert reader.read_segmentation(image).segments == (Segment(1, 1, True, 1),)
        assert reader.read_image(image).shape == (*SIZE_HW, 3)
    # Images of JSONs that cannot be read are not reported as images without JSON.
    assert reader.skipped == ()
    first_issues, issues = issues, []
    LabelmeReader(tmp_path, things=["dog"], ignore=["sky"], on_issue=on_issue)
    assert issues == first_issues


def test_labels_of_images_that_are_left_out_are_categories(tmp_path: Path) -> None:
    store(tmp_path, [box("dog", 0, 0, 1, 1)])
    store(tmp_path, [box("cat", 0, 0, 1, 1)], "b", imageWidth=9)
    reader = LabelmeReader(tmp_path, on_issue=lambda code, error: None)
    assert [(c.category_id, c.name) for c in reader.categories.categories] == [(1, "cat"), (2, "dog")]
    assert [image.image_id for image in reader.images] == ["a"]


def test_masks_in_base64_with_line_breaks_are_read(tmp_path: Path) -> None:
    # base64.encodebytes, which labelme's own helper used to call, breaks a line after 76 characters.
    mask = np.eye(4, 6, dtype=np.uint8)
    base64_with_lines = base64.encodebytes(base64.b64decode(encode_png(mask))).decode()
    assert "\n" in base64_with_lines.strip()
    store(tmp_path, [{"label": "dog", "points": [[0, 0], [5, 3]], "shape_type": "mask", "mask": base64_with_lines}])
    np.testing.assert_array_equal(read_only_image(LabelmeReader(tmp_path)).segment_ids, mask)


def test_files_of_labelme_version_3_are_read(tmp_path: Path) -> None:
    # No shape_type, no group_id, no flags, no size of the image; colours in their place.
    shape = {"label": "dog", "line_color": None, "fill_color": None, "points": [[0, 0], [2, 0], [2, 2], [0, 2]]}
    content = {
        "version": "3.0.0",
        "flags": {},
        "shapes": [shape],
        "lineColor": [0, 255, 0, 128],
        "fillColor": [255, 0, 0, 128],
        "imagePath": "a.png",
        "imageData": "AAAA",
    }
    store(tmp_path, []).write_text(json.dumps(content))
    assert read_only_image(LabelmeReader(tmp_path)).segments == (Segment(1, 1, True, 9),)


def test_links_to_nothing_and_pipes_are_reported(tmp_path: Path) -> None:
    store(tmp_path, [box("dog", 0, 0, 1, 1)])
    (tmp_path / "loop.json").symlink_to("loop.json")
    names = ["loop.json"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.json")
        names.append("pipe.json")
    issues: list[tuple[str, str]] = []
    reader = LabelmeReader(tmp_path, on_issue=lambda code, error: issues.append((code, str(error).split(": ")[0])))
    assert issues == [("json-unreadable", str(tmp_path / name)) for name in names]
    assert [image.image_id for image in reader.images] == ["a"]


def test_all_issues_of_a_file_are_reported(tmp_path: Path) -> None:
    """The mask of shape 3 is damaged. It is checked because the image is left out for other issues."""
    mask = {"label": "dog", "points": [[0, 0], [1, 1]], "shape_type": "mask", "mask": "?"}
    store(tmp_path, [box("dog", 0, 0, 1, 1), 7, box("", 0, 0, 1, 1), mask], imagePath="../a.png")
    store(tmp_path, [box("dog", 0, 0, 1, 1)], "b")
    issues: list[tuple[str, str]] = []
    reader = LabelmeReader(tmp_path, on_issue=lambda code, error: issues.append((code, Path(error.where).name)))
    assert issues == [
        ("annotation-unreadable", "a.json, shape 1"),
        ("annotation-unreadable", "a.json, shape 2"),
        ("annotation-unreadable", "a.json, shape 3"),
        ("name-outside", "a.json"),
    ]
    assert [image.image_id for image in reader.images] == ["b"]


def test_options_of_another_type_raise_a_config_error(tmp_path: Path) -> None:
    store(tmp_path, [box("dog", 0, 0, 1, 1)])
    for key in ("things", "stuff", "ignore"):
        for value in (3, "dog", [3], 0):
            with pytest.raises(
                ConfigError, match=f"expected {key} to be a list of labels, got {value!r}".replace("[", r"\[")
            ):
                LabelmeReader(tmp_path, **{key: value})
