"""Reads Ultralytics' YOLO trees as users have them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from segkit.formats.yolo import YoloReader
from segkit.structures import segmentation_to_rle
from segkit.utils.errors import ConfigError, DatasetError

HALF = "0 0 0 0.5 0 0.5 1 0 1"  # the left half of the image
BOMB = "\n".join(["k0: &k0 {a: 1}", *(f"k{i}: &k{i} {{<<: [*k{i - 1}, *k{i - 1}]}}" for i in range(1, 40))])
QUARTER = "1 0 0 0.5 0 0.5 0.5 0 0.5"  # its upper half


def write_set(root: Path, folder: str, labels: dict[str, str | None], images: str = "images") -> None:
    """Writes `<folder>/NAME.png` of 2 x 4 pixels, and its label file; None writes no label file."""
    for name, text in labels.items():
        path = root / folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 2)).save(path)
        if text is not None:
            label = root / folder.replace(images, "labels") / f"{name}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(text)


def write_tree(root: Path, text: str = "train: images/train\nval: images/val\nnames: [cat, dog]\n") -> Path:
    write_set(root, "images/train", {"a": f"{HALF}\n{QUARTER}\n", "b": None})
    write_set(root, "images/val", {"c": HALF})
    (root / "data.yaml").write_text(text)
    return root


def collect_issues(root: Path, **options: object) -> tuple[YoloReader, list[tuple[str, str]]]:
    issues: list[tuple[str, str]] = []
    reader = YoloReader(root, on_issue=lambda code, error: issues.append((code, str(error))), **options)
    return reader, issues


def test_the_example(tmp_path: Path) -> None:
    """Of 2 x 4 pixels, the cat has the two columns at the left, the dog the upper row of these."""
    reader = YoloReader(write_tree(tmp_path))
    assert [(c.category_id, c.name, c.isthing) for c in reader.categories.categories] == [
        (0, "cat", True),
        (1, "dog", True),
    ]
    first, second = reader.images
    assert [(i.image_id, i.file_name, i.size_hw) for i in reader.images] == [
        ("a", "a.png", (2, 4)),
        ("b", "b.png", (2, 4)),
    ]
    assert reader.read_segmentation(first).segment_ids.tolist() == [[2, 2, 0, 0], [1, 1, 0, 0]]
    assert [a["area"] for a in reader.read_annotations(first)] == [4, 2]
    assert reader.read_stored_annotations(first)[1] == {
        "image_id": "a",
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [0, 0, 2, 1],
        "segmentation": [[0, 0, 2, 0, 2, 1, 0, 1]],
    }
    assert reader.read_annotations(second) == []
    assert reader.skipped == (f"{tmp_path}/images/train: 1 images have no label file, and so no objects: 'b'",)
    assert [i.image_id for i in YoloReader(tmp_path, "val").images] == ["c"]


@pytest.mark.parametrize(
    "text",
    [
        "train: images/train\nnames: {0: cat, 1: dog}\nnc: 2",
        "path: .\ntrain: ./images/train\nnames: [cat, dog]",
        "train: [images/train]\nnames: [cat, dog]",
        "train: images\\train\nnames: [cat, dog]",
        "path: C:\\data\\pets\ntrain: C:\\data\\pets\\images\\train\nnames: [cat, dog]",
        "path: /content/pets\ntrain: /content/pets/images/train\nnames: [cat, dog]",
        "train: ../images/train\nnames: [cat, dog]",
        "train: {root}/images/train\nnames: [cat, dog]",
        "train: train.txt\nnames: [cat, dog]",
    ],
)
def test_paths_as_tools_write_them(tmp_path: Path, text: str) -> None:
    """A moved dataset is found beside its data.yaml; images of a list are relative to the list or the root."""
    write_tree(tmp_path, text.replace("{root}", str(tmp_path)))
    (tmp_path / "train.txt").write_text("./images/train/a.png\r\ndata\\images\\train\\b.png\n\n")
    reader = YoloReader(tmp_path)
    assert [image.file_name for image in reader.images] == ["a.png", "b.png"]
    assert [c.name for c in reader.categories.categories] == ["cat", "dog"]


def test_the_tree_of_roboflow(tmp_path: Path) -> None:
    write_set(tmp_path, "train/images", {"a": HALF})
    write_set(tmp_path, "valid/images", {"b": HALF})
    (tmp_path / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['cat']\n")
    assert [
        (i.image_id, r.image_root) for r in (YoloReader(tmp_path), YoloReader(tmp_path, "val")) for i in r.images
    ] == [
        ("a", tmp_path / "train/images"),
        ("b", tmp_path / "valid/images"),
    ]


def test_a_file_of_another_name_and_path(tmp_path: Path) -> None:
    write_tree(tmp_path / "pets")
    (tmp_path / "pets/data.yaml").unlink()
    path = tmp_path / "pets.yaml"
    path.write_text("path: pets\ntrain: images/train\nnc: 2")
    assert [c.name for c in YoloReader(path).categories.categories] == ["class_0", "class_1"]
    assert [image.image_id for image in YoloReader(tmp_path).images] == ["a", "b"]  # the only YAML
    (tmp_path / "coco.yaml").write_text("")
    with pytest.raises(DatasetError, match=r"expected data\.yaml, found coco\.yaml, pets\.yaml; give the file as root"):
        YoloReader(tmp_path)


def test_a_path_that_leads_out_must_be_named(tmp_path: Path) -> None:
    write_tree(tmp_path / "pets", "path: ../other\ntrain: set/images\nnames: [cat, dog]")
    write_set(tmp_path / "other", "set/images", {"x": HALF})
    message = r"'\.\./other/set/images' leads out of .*; name the folder of the dataset by --set path=FOLDER"
    with pytest.raises(DatasetError, match=message):
        YoloReader(tmp_path / "pets")
    reader = YoloReader(tmp_path / "pets", path=tmp_path / "other", classes=["cat"])
    assert [image.image_id for image in reader.images] == ["x"]


def test_a_folder_without_data_yaml(tmp_path: Path) -> None:
    """As Label Studio exports it."""
    write_set(tmp_path, "images", {"a": HALF, "b": HALF, "c": HALF, "d": QUARTER.replace("1 0", "0 0", 1)})
    with pytest.raises(DatasetError, match=r"expected data\.yaml or classes\.txt, found neither"):
        YoloReader(tmp_path)
    assert len(YoloReader(tmp_path, classes=["cat"]).images) == 4
    (tmp_path / "labels/classes.txt").write_text("cat\n\n")
    reader = YoloReader(tmp_path)
    assert [c.name for c in reader.categories.categories] == ["cat"]
    with pytest.raises(DatasetError, match="expected the images of 'val', the splits are train; divide the images by"):
        YoloReader(tmp_path, "val")
    parts = [YoloReader(tmp_path, split, val_share=0.5).images for split in ("train", "val")]
    assert all(parts)
    assert sorted(i.image_id for part in parts for i in part) == ["a", "b", "c", "d"]
    with pytest.raises(ConfigError, match="expected split to be 'train', 'val'"):
        YoloReader(tmp_path, "test", val_share=0.5)


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("0 0.5 0.5 0.2 0.2", "outline-missing", "line 2: a box without outline, as for detection"),
        ("0 0.5 0.5 0.2 0.2 0.9", "outline-missing", "a box without outline"),
        ("2 0 0 1 0 1 1", "category-unknown", "the class 2 has no name; name it in data.yaml"),
        ("0 0 0 1 0 1 1.5", "annotation-unreadable", "expected x and y in 0..1, got 1.5; divide x by the width"),
        ("0 0 0 320 0 320 240", "annotation-unreadable", "expected x and y in 0..1, got 320"),
        ("0 0 0 1 0 1 nan", "annotation-unreadable", "expected x and y in 0..1, got nan"),
        ("0 0 0 1 0 1 1 0.9", "annotation-unreadable", "three or more pairs of x and y after the class, got 7 numbers"),
        ("0 0 0 1", "annotation-unreadable", "three or more pairs"),
        ("0 a b c d e f", "annotation-unreadable", "expected numbers after the class"),
        ("cat 0 0 1 0 1 1", "annotation-unreadable", "expected the number of a class first, got 'cat'"),
        ("-1 0 0 1 0 1 1", "annotation-unreadable", "expected the number of a class first, got '-1'"),
    ],
)
def test_an_invalid_line_leaves_the_image_out(tmp_path: Path, line: str, code: str, message: str) -> None:
    write_tree(tmp_path)
    (tmp_path / "labels/train/b.txt").write_text(f"{HALF}\n{line}\n")
    reader, issues = collect_issues(tmp_path)
    assert [image.image_id for image in reader.images] == ["a"]
    assert [issue[0] for issue in issues] == [code]
    assert f"{tmp_path}/labels/train/b.txt, line 2: " in issues[0][1]
    assert message in issues[0][1]
    with pytest.raises(DatasetError):
        YoloReader(tmp_path)


def test_what_ultralytics_accepts(tmp_path: Path) -> None:
    """Classes as 1.0, blank lines, a byte order mark, coordinates outside by up to 0.01: these are cut off."""
    write_tree(tmp_path)
    (tmp_path / "labels/train/b.txt").write_text("\ufeff1.0 -0.01 0 1.01 0 1.01 1.01 -0.01 1\n\n", encoding="utf-8")
    reader = YoloReader(tmp_path)
    (annotation,) = reader.read_annotations(reader.images[1])
    assert (annotation["category_id"], annotation["area"], annotation["bbox"]) == (1, 8, [0, 0, 4, 2])


def test_faults_of_files(tmp_path: Path) -> None:
    write_tree(tmp_path)
    (tmp_path / "labels/train/lost.txt").write_text(HALF)
    (tmp_path / "labels/train/classes.txt").write_text("cat")
    (tmp_path / "images/train/b.png").write_bytes(b"no image")
    (tmp_path / "list.txt").write_text("images/train/a.png\nimages/train/gone.png\n")
    reader, issues = collect_issues(tmp_path)
    assert [image.image_id for image in reader.images] == ["a"]
    assert sorted(code for code, _ in issues) == ["image-missing", "image-unreadable"]
    (tmp_path / "data.yaml").write_text("train: list.txt\nnames: [cat, dog]")
    reader, issues = collect_issues(tmp_path)
    assert [issue[0] for issue in issues] == ["image-missing"]  # other labels may be of images in another list
    assert "'images/train/gone.png'" in issues[0][1]


def test_a_dataset_without_labels(tmp_path: Path) -> None:
    write_set(tmp_path, "images/train", {"a": None})
    (tmp_path / "data.yaml").write_text("train: images/train\nnc: 1")
    with pytest.raises(DatasetError, match=r"none of its 1 images has a label file, such as labels/train/a\.txt"):
        YoloReader(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: images/train\nnc: 3\nnames: [cat, dog]", "expected `nc` to be the number of the names, got 3 for 2"),
        ("train: images/train", "expected `names` of 1 to 65536 classes, got None"),
        ("train: images/train\nnc: 99999999", "expected `names` of 1 to 65536 classes, got None"),
        ("train: images/train\nnames: {a: cat}", "expected a different class from 0 and a name"),
        ("train: images/train\nnames: [[cat]]", "expected a different class from 0 and a name"),
        ("train: 3\nnames: [cat]", "expected `train` to be paths, got 3"),
        ("train: images/none\nnames: [cat]", "expected 'images/none' in .*, found nothing"),
        ("train: labels\nnames: [cat]", "expected images of 'train' in labels, found none"),
        ("val: images/val\nnames: [cat]", "expected the images of 'train', the splits are val; add `train` to it"),
        ("- a", "expected an object with names, train and val, got list"),
        ("a: [", "expected YAML, got something else"),
        ("[" * 100000, "expected YAML, got something else"),
        (BOMB, "expected YAML, got something else: .*with aliases replaced; is it YOLO's"),
    ],
)
def test_an_invalid_data_yaml(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        YoloReader(write_tree(tmp_path, text))


def test_two_images_of_one_name(tmp_path: Path) -> None:
    write_tree(tmp_path)
    Image.new("RGB", (4, 2)).save(tmp_path / "images/train/a.jpg")
    reader, issues = collect_issues(tmp_path)
    assert [code for code, _ in issues] == ["image-id-twice"]
    assert [image.file_name for image in reader.images] == ["a.jpg", "b.png"]


def test_lines_that_are_probably_wrong(tmp_path: Path) -> None:
    write_tree(tmp_path)
    (tmp_path / "labels/train/b.txt").write_text(f"{HALF}\n0 0.1 0.1 0.1 0.1 0.1 0.1\n{HALF}\n")
    reader, issues = YoloReader(tmp_path), []
    reader.check_annotation(reader.images[1], lambda code, error: issues.append((code, str(error))))
    where = f"{tmp_path}/labels/train/b.txt, line"
    assert issues == [
        ("segment-empty", f"{where} 2 ('cat'): its outline has no pixel inside"),
        ("mask-twice", f"{where} 3 ('cat'): it is equal to line 1"),
    ]
    assert len(reader.read_annotations(reader.images[1])) == 2


def test_masks_are_those_of_coco_polygons(tmp_path: Path) -> None:
    """What Ultralytics' conversion of a COCO JSON writes has COCO's pixels."""
    polygon = [0.3, 0.2, 3.3, 0.4, 2.7, 1.8, 0.6, 1.6]
    line = " ".join(f"{value / side:.6g}" for value, side in zip(polygon, [4, 2] * 4, strict=True))
    write_tree(tmp_path)
    (tmp_path / "labels/train/b.txt").write_text(f"0 {line}")
    reader = YoloReader(tmp_path)
    (annotation,) = reader.read_annotations(reader.images[1])
    assert annotation["segmentation"] == segmentation_to_rle([polygon], (2, 4))
