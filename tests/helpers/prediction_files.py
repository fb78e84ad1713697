"""Small ground truth and prediction files of every kind that `segkit evaluate` scores."""

import json

import numpy as np
from PIL import Image

from segkit.structures import ids_to_rgb

CAR, DOG, SKY = 1, 17, 90
CATEGORIES = [
    {"id": CAR, "name": "[red]car", "isthing": 1},
    {"id": DOG, "name": "dog", "isthing": 1},
    {"id": SKY, "name": "sky", "isthing": 0},
]
KINDS = ("panoptic", "instances", "cityscapes", "semantic")
CITY_IMAGES = [f"ulm_00000{number}_000019" for number in range(5)]


def write_panoptic(root, name, maps, areas=None):
    """Write root/name.json and root/name/ from {image_id: (rows, {segment_id: category_id})}.

    areas: the declared area of every segment, by default its true area.
    """
    (root / name).mkdir(parents=True)
    annotations, images = [], []
    for number, (image_id, (rows, category_ids)) in enumerate(maps.items()):
        ids = np.array(rows, dtype=np.int32)
        Image.fromarray(ids_to_rgb(ids)).save(root / name / f"{number}.png")
        infos = [
            {
                "id": segment_id,
                "category_id": category_id,
                "iscrowd": 0,
                "area": int((ids == segment_id).sum()) if areas is None else areas,
                "bbox": [0, 0, 1, 1],
            }
            for segment_id, category_id in category_ids.items()
        ]
        annotations.append({"image_id": image_id, "file_name": f"{number}.png", "segments_info": infos})
        images.append({"id": image_id, "file_name": f"{number}.jpg", "height": len(rows), "width": len(rows[0])})
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    (root / f"{name}.json").write_text(json.dumps(content))
    return root / f"{name}.json"


def two_images(root):
    """car: 1 match, 1 missed: PQ 1 / 1.5; dog: 1 false: 0; sky: 2 matches: 100. PQ (66.7 + 0 + 100) / 3 = 55.6."""
    rows = [[1, 1, 2, 2], [1, 1, 2, 2]]
    right, wrong = {1: CAR, 2: SKY}, {1: DOG, 2: SKY}
    ground_truth = write_panoptic(root, "ground_truth", {1: (rows, right), 2: (rows, right)})
    return ground_truth, write_panoptic(root, "predictions", {1: (rows, right), 2: (rows, wrong)})


def panoptic_files(root):
    rng = np.random.default_rng(0)
    ground_truth, predictions = {}, {}
    for image_id in (7, 3, "b", 12, "a", 1):
        rows = np.kron([[1, 2, 3], [4, 3, 3]], np.ones((6, 6), int))
        moved = np.where(rng.random(rows.shape) < 0.15, 3, rows)
        category_ids = {1: CAR, 2: int(rng.choice([CAR, DOG])), 3: SKY, 4: DOG}
        ground_truth[image_id] = rows.tolist(), category_ids
        predictions[image_id] = moved.tolist(), {**category_ids, 4: int(rng.choice([CAR, DOG]))}
    # The images are not in the order of their ids: the last bits of the sums depend on the order.
    return (
        "panoptic",
        write_panoptic(root, "ground_truth", ground_truth),
        write_panoptic(root, "predictions", predictions),
    )


def instances_files(root):
    rng = np.random.default_rng(1)
    images = [
        {"id": image_id, "file_name": f"{image_id}.jpg", "height": 60, "width": 80} for image_id in (5, 2, 9, 4, 1)
    ]
    annotations, results = [], []
    for image in images:
        for _ in range(4):
            x, y, w, h = (int(value) for value in (*rng.integers(0, 30, 2), *rng.integers(8, 30, 2)))
            category_id = int(rng.choice([CAR, DOG]))
            moved = [x + int(rng.integers(0, 3)), y, w, h]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image["id"], "category_id": category_id, "iscrowd": 0}
                | {"bbox": [x, y, w, h], "area": w * h, "segmentation": [polygon(x, y, w, h)]}
            )
            score = float(rng.integers(1, 4)) / 4  # many are equal
            results.append({"image_id": image["id"], "category_id": category_id, "bbox": moved, "score": score})
    categories = [category for category in CATEGORIES if category["isthing"]]
    root.mkdir(parents=True, exist_ok=True)
    ground_truth, predictions = root / "ground_truth.json", root / "results.json"
    ground_truth.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    predictions.write_text(json.dumps(results))
    return "instances", ground_truth, predictions


def polygon(x, y, w, h):
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def cityscapes_files(root):
    rng = np.random.default_rng(2)
    (root / "gt/ulm").mkdir(parents=True)
    (root / "pred").mkdir()
    for image_id in CITY_IMAGES:
        ids = np.full((40, 60), 7, dtype=np.int32)
        ids[5:25, 5:25], ids[5:25, 30:50] = 26000, 24001
        Image.fromarray(ids.astype(np.uint16)).save(root / f"gt/ulm/{image_id}_gtFine_instanceIds.png")
        lines = []
        for number, (label, instance_id) in enumerate(((26, 26000), (24, 24001))):
            mask = np.roll(ids == instance_id, int(rng.integers(0, 8)), axis=1)
            Image.fromarray((mask * 255).astype(np.uint8)).save(root / f"pred/{image_id}_{number}.png")
            lines.append(f"{image_id}_{number}.png {label} {rng.integers(1, 4) / 4}\n")
        (root / f"pred/{image_id}_pred.txt").write_text("".join(lines))
    return "cityscapes", root / "gt", root / "pred"


def semantic_files(root):
    rng = np.random.default_rng(3)
    for folder in ("gt", "pred"):
        (root / folder).mkdir(parents=True)
        for number in range(5):
            Image.fromarray(rng.integers(0, 3, (9, 11)).astype(np.uint8)).save(root / folder / f"{number}.png")
    return "semantic", root / "gt", root / "pred"


WRITE_FILES = {
    "panoptic": panoptic_files,
    "instances": instances_files,
    "cityscapes": cityscapes_files,
    "semantic": semantic_files,
}
ARGUMENTS = {
    "panoptic": ["panoptic", "--dagger", "--boundary"],
    "instances": ["instances", "--iou-types", "bbox"],
    "cityscapes": ["instances", "--protocol", "cityscapes"],
    "semantic": ["semantic", "--boundary", "--classes", "road", "sky", "[blue]car"],
}


def error_line(result):
    """Returns the error of a failed command: one line, and one for each kind of several problems."""
    code, out, error = result
    assert (code, out) == (1, ""), result
    assert error.endswith("\n")
    assert all(line.startswith("- ") for line in error.splitlines()[1:]), error
    assert "Traceback" not in error
    return error
