"""Panoptic quality of files: one fixture folder per rule of the reference, the reference itself, bad files.

A fixture folder holds ground_truth.json, ground_truth/, predictions.json, predictions/, a note.md with the arithmetic,
and an expected.json: `options` of `score_panoptic`; what the modes `reference` and `corrected` give, numbers or parts
of an error; what `panopticapi` gives, null where an average ends in a ZeroDivisionError. "reference":
as documented there.
"""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from segkit.metrics import PanopticQuality
from segkit.scoring.panoptic import score_panoptic
from segkit.structures import MAX_SEGMENT_ID, ids_to_rgb
from segkit.utils.errors import DatasetError
from segkit.utils.process_pool import Shard

try:
    from panopticapi import evaluation as panopticapi
except ImportError:
    panopticapi = None
needs_panopticapi = pytest.mark.skipif(panopticapi is None, reason="panopticapi is not installed: no oracle for PQ")

FIXTURES = Path(__file__).parent.parent / "fixtures" / "panoptic_quality"
RULES = sorted(folder.name for folder in FIXTURES.iterdir())
GROUPS = {"all": "", "things": "_th", "stuff": "_st"}
CAR, DOG, SKY = {"id": 1, "isthing": 1}, {"id": 17, "isthing": 1}, {"id": 90, "isthing": 0}
CATEGORIES = [{**category, "name": f"c{category['id']}"} for category in (CAR, DOG, SKY)]


def numbers(results):
    """The results in the form of expected.json."""
    expected = {
        group: {name: results[name + suffix] for name in ("PQ", "SQ", "RQ")} for group, suffix in GROUPS.items()
    }
    columns = ("PQ", "SQ", "RQ", "tp", "fp", "fn")
    expected["per_class"] = {
        category_id: {name: one[name] for name in columns}
        for category_id, one in results["per_class"].items()
        if one["tp"] + one["fp"] + one["fn"]
    }
    return expected


def score(folder, **options):
    scored = score_panoptic(folder / "ground_truth.json", folder / "predictions.json", **options)
    return numbers(scored.metric.compute(scored.image_order))


def reference(folder):
    """panopticapi's pq_compute on the folder, without its pool of processes, in the form of expected.json."""
    ground_truth, predictions = (
        json.loads((folder / f"{name}.json").read_text()) for name in ("ground_truth", "predictions")
    )
    categories = {entry["id"]: entry for entry in ground_truth["categories"]}
    predicted = {annotation["image_id"]: annotation for annotation in predictions["annotations"]}
    for annotation in ground_truth["annotations"]:
        if annotation["image_id"] not in predicted:
            raise Exception(f"no prediction for the image with id: {annotation['image_id']}")
    pairs = [(annotation, predicted[annotation["image_id"]]) for annotation in ground_truth["annotations"]]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        stat = panopticapi.pq_compute_single_core(0, pairs, folder / "ground_truth", folder / "predictions", categories)
    expected = {
        group: average(stat, categories, isthing) for group, isthing in zip(GROUPS, (None, True, False), strict=True)
    }
    _, per_class = stat.pq_average(categories, None) if expected["all"]["PQ"] is not None else (None, {})
    present = [i for i in sorted(per_class) if stat[i].tp + stat[i].fp + stat[i].fn]
    expected["per_class"] = {
        str(i): {name: 100 * per_class[i][name.lower()] for name in ("PQ", "SQ", "RQ")}
        | {name: getattr(stat[i], name) for name in ("tp", "fp", "fn")}
        for i in present
    }
    return expected


def average(stat, categories, isthing):
    try:
        values, _ = stat.pq_average(categories, isthing)
    except ZeroDivisionError:
        return dict.fromkeys(("PQ", "SQ", "RQ"))
    return {name: 100 * values[name.lower()] for name in ("PQ", "SQ", "RQ")}


def read_expected(rule, side):
    expected = json.loads((FIXTURES / rule / "expected.json").read_text())
    wanted = expected[side]
    return expected["options"], expected["reference"] if wanted == "reference" else wanted


@pytest.mark.parametrize("mode", ["reference", "corrected"])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_its_fixture(rule, mode):
    options, expected = read_expected(rule, mode)
    if "error" not in expected:
        assert score(FIXTURES / rule, mode=mode, **options) == expected
        return
    with pytest.raises(DatasetError) as caught:
        score(FIXTURES / rule, mode=mode, **options)
    for part in expected["error"]:
        assert part in str(caught.value)


@needs_panopticapi
@pytest.mark.parametrize("rule", RULES)
def test_panopticapi_behaves_as_the_fixtures_state(rule):
    _, expected = read_expected(rule, "panopticapi")
    if "raises" not in expected:
        assert reference(FIXTURES / rule) == expected
        return
    with pytest.raises(Exception) as caught:  # noqa: PT011 (compared below)
        reference(FIXTURES / rule)
    assert (type(caught.value).__name__, str(caught.value.args[0])) == (expected["raises"], expected["says"])


def test_every_fixture_is_complete():
    parts = {"expected.json", "note.md", "predictions", "predictions.json", "ground_truth", "ground_truth.json"}
    assert len(RULES) > 50
    for rule in RULES:
        assert {path.name for path in (FIXTURES / rule).iterdir()} == parts
        assert (FIXTURES / rule / "note.md").read_text().rstrip().endswith(".")


# Random datasets


def write(folder, images, categories=CATEGORIES):
    """images: image_id -> ((map, segments_info) of ground truth and prediction); true areas are counted."""
    for side, name in enumerate(("ground_truth", "predictions")):
        (folder / name).mkdir(parents=True)
        annotations = []
        for index, (image_id, pair) in enumerate(images.items()):
            ids, infos = pair[side]
            Image.fromarray(ids_to_rgb(ids)).save(folder / name / f"{index}.png")
            areas = {} if side else {"area": None}
            segments_info = [{**info, **{key: int((ids == info["id"]).sum()) for key in areas}} for info in infos]
            annotations.append({"image_id": image_id, "file_name": f"{index}.png", "segments_info": segments_info})
        content = {"annotations": annotations[:: -1 if side else 1]}
        if not side:
            sizes = [pair[0][0].shape for pair in images.values()]
            content["images"] = [
                {"id": image_id, "file_name": f"{index}.jpg", "height": height, "width": width}
                for index, (image_id, (height, width)) in enumerate(zip(images, sizes, strict=True))
            ]
            content["categories"] = categories
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


SEGMENT_IDS = st.sampled_from([1, 2, 3, 4, 255, 256, 65535, 65536, MAX_SEGMENT_ID - 1, MAX_SEGMENT_ID])
CATEGORY_IDS = st.sampled_from([1, 1, 17, 90])


@st.composite
def segment_maps(draw, shape, similar=None):
    """A map of up to 6 ids and its segments_info; `near`: another one that it mostly agrees with."""
    palette = [0, *draw(st.lists(SEGMENT_IDS, min_size=1, max_size=6, unique=True))]
    ids = draw(hnp.arrays(np.int32, shape, elements=st.sampled_from(palette)))
    known_categories = {}
    if similar is not None:
        unchanged = draw(hnp.arrays(np.bool_, shape, elements=st.sampled_from([True, True, True, False])))
        ids = np.where(unchanged, similar[0], ids)
        known_categories = {info["id"]: info["category_id"] for info in similar[1]}
    present = draw(st.permutations([i for i in np.unique(ids).tolist() if i]))
    return ids, [
        {
            "id": i,
            "category_id": known_categories.get(i) or draw(CATEGORY_IDS),
            "iscrowd": int(draw(st.integers(0, 2)) == 0),
        }
        for i in present
    ]


@st.composite
def datasets(draw):
    images = {}
    for image_id in draw(
        st.lists(st.integers(-3, 40) | st.text("ab7", max_size=2), min_size=1, max_size=5, unique=True)
    ):
        shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7))
        ground_truth = draw(segment_maps(shape))
        images[image_id] = (
            ground_truth,
            draw(segment_maps(shape, similar=ground_truth if draw(st.booleans()) else None)),
        )
    return images, draw(st.permutations(CATEGORIES))


@needs_panopticapi
@settings(max_examples=60, deadline=None)
@given(datasets())
def test_random_files_equal_panopticapi(tmp_path_factory, dataset):
    folder = write(tmp_path_factory.mktemp("pq") / "x", *dataset)
    expected = reference(folder)
    assert score(folder) == expected
    assert score(folder, workers=3, areas="trust") == expected


@settings(max_examples=25, deadline=None)
@given(datasets(), st.sampled_from(["reference", "corrected"]), st.randoms(use_true_random=False))
def test_shards_in_any_order_equal_one_pass(tmp_path_factory, dataset, mode, random):
    folder = write(tmp_path_factory.mktemp("pq") / "x", *dataset)
    files = folder / "ground_truth.json", folder / "predictions.json"
    options = {"mode": mode, "boundary": True, "dagger": True}
    whole = score_panoptic(*files, **options)
    parts = [score_panoptic(*files, shard=Shard(i, 3), workers=2, **options) for i in (1, 2, 3)]
    assert {part.image_order for part in parts} == {whole.image_order}
    assert [len(part.metric) for part in parts] == [len(range(i, len(whole.image_order), 3)) for i in range(3)]
    random.shuffle(parts)
    merged = PanopticQuality.from_state(*parts[0].metric.state())
    for part in parts[1:]:
        merged.merge(part.metric)
    assert merged.compute() == whole.metric.compute()
    assert merged.compute(whole.image_order) == whole.metric.compute(whole.image_order)
    assert merged.per_image() == whole.metric.per_image()


def test_progress_is_reported_image_by_image(tmp_path):
    folder = write(tmp_path / "x", dict.fromkeys(range(7), (GROUND_TRUTH, GROUND_TRUTH)))
    files = folder / "ground_truth.json", folder / "predictions.json"
    calls = []
    for workers in (1, 3):
        score_panoptic(*files, workers=workers, shard=Shard(2, 2), progress=lambda *call: calls.append(call))
    assert calls == 2 * [(1, 3), (2, 3), (3, 3)]


# Bad files

CAR_AND_SKY = [{"id": 1, "category_id": 1, "iscrowd": 0}, {"id": 9, "category_id": 90, "iscrowd": 0}]
GROUND_TRUTH = (np.array([[1, 1, 1], [9, 9, 0]], dtype=np.int32), CAR_AND_SKY)


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "x", dict.fromkeys((1, 2, "three", 4), (GROUND_TRUTH, GROUND_TRUTH)))


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def message(folder, **options):
    with pytest.raises(DatasetError) as caught:
        score(folder, **options)
    return str(caught.value)


INSTANCES = {"images": [], "categories": CATEGORIES, "annotations": [{"id": 1, "image_id": 1, "bbox": [0, 0, 1, 1]}]}
OTHER_FILES = {
    "empty": ("", "expected JSON, got 0 bytes"),
    "cut": ('{"annotations": [', "expected JSON, got 17 bytes"),
    "list": ("[]", "got a list"),
    "number": ("3", "expected an object"),
    "object": ("{}", "expected `annotations` to be a list, got none"),
    "null": ('{"annotations": null}', "expected `annotations` to be a list, got None"),
    "texts": ('{"annotations": ["a"]}', "expected `annotations` to hold objects, got 'a' at index 0"),
    "instances": (json.dumps(INSTANCES), "this is an instances JSON"),
}


@pytest.mark.parametrize("name", ["ground_truth", "predictions"])
@pytest.mark.parametrize("kind", OTHER_FILES)
def test_a_json_of_another_kind_is_rejected(folder, name, kind):
    content, expected = OTHER_FILES[kind]
    path = folder / f"{name}.json"
    path.write_text(content)
    assert expected in message(folder)
    assert message(folder).startswith(str(path))


@pytest.mark.parametrize("name", ["ground_truth", "predictions"])
def test_missing_files_and_folders(folder, name):
    (folder / name).rename(folder / "elsewhere")
    option = "--gt-folder" if name == "ground_truth" else "--pred-folder"
    assert message(folder).startswith(
        f"{folder / name}: no such folder of PNGs, and no PNGs of {folder / name}.json in "
    )
    assert message(folder).endswith(f"; name the folder ({option})")
    options = {"gt_folder" if name == "ground_truth" else "pred_folder": folder / "elsewhere"}
    assert score(folder, **options)["all"]["PQ"] == 100.0
    (folder / f"{name}.json").unlink()
    assert message(folder, **options).startswith(f"{folder / name}.json: expected a file, found nothing")


def test_all_bad_pngs_are_reported_with_their_image(folder):
    png = folder / "predictions" / "0.png"
    png.write_bytes(png.read_bytes()[:-30])
    (folder / "predictions" / "1.png").unlink()
    Image.new("L", (3, 2)).save(folder / "ground_truth" / "2.png")
    Image.fromarray(ids_to_rgb(np.ones((3, 2), np.int32))).save(folder / "predictions" / "3.png")
    for workers in (1, 3):
        text = message(folder, workers=workers)
        assert text.startswith("4 problems:\n- ")
        assert f"- {png}: the PNG cannot be decoded" in text
        assert f"- {folder / 'predictions' / '1.png'}: expected a file, found nothing" in text
        assert f"- {folder / 'ground_truth' / '2.png'}: expected a PNG of 8-bit" in text
        assert (
            f"- {folder / 'ground_truth' / '3.png'}, image 4 (prediction {folder / 'predictions' / '3.png'}): " in text
        )
        assert "got 2 x 3 and 3 x 2" in text


SEGMENT_ERRORS = [  # of one image each: the segment as the message has it, and what is said of it
    ("1", "expected a category_id of `categories` (1, 17, 90), got 5"),
    ("1", "expected distinct segment ids"),
    ("16777216", "expected a segment id in 1..16777215"),
    ("'1'", "expected `id` to be an integer, got '1'"),
]


def spoil_segments(content):
    """Insert one error into each image, in the order of the file."""
    infos = [annotation["segments_info"] for annotation in content["annotations"]]
    infos[0][0]["category_id"] = 5
    infos[1][1]["id"] = 1
    infos[2][0]["id"] = 2**24
    infos[3][0]["id"] = "1"


@pytest.mark.parametrize(("name", "order"), [("ground_truth", (1, 2, "three", 4)), ("predictions", (4, "three", 2, 1))])
def test_errors_of_many_segments_are_reported_at_once(folder, name, order):
    path = folder / f"{name}.json"
    edit(path, spoil_segments)
    text = message(folder)
    assert text.startswith("4 problems:\n- ")
    for image_id, error in zip(order, SEGMENT_ERRORS, strict=True):
        assert "\n- {}, image {!r}, segment {}: {}".format(path, image_id, *error) in text
    assert message(folder, limit=2).startswith("2 problems found, the search stopped here:\n- ")
    assert "segment 16777216" not in message(folder, limit=2)


def test_the_error_limit_also_stops_the_check_of_pngs(folder):
    for index in range(4):
        (folder / "predictions" / f"{index}.png").unlink()
    for workers in (1, 2):
        text = message(folder, limit=3, workers=workers)
        assert text.startswith("3 problems found, the search stopped here:\n- 3 times: ")
        assert "2.png" in text
        assert "3.png" not in text


def test_a_rejected_annotation_is_neither_missing_nor_extra(folder):
    for name in ("ground_truth", "predictions"):
        edit(
            folder / f"{name}.json", lambda content: content["annotations"][0]["segments_info"][0].update(category_id=5)
        )
    text = message(folder)
    assert text.startswith("2 problems:\n- 2 times: ")
    assert "have no prediction" not in text
    assert "that the ground truth lacks" not in text


def test_missing_repeated_and_extra_predictions(folder):
    def change(content):
        predictions = content["annotations"]
        predictions[:] = [{**predictions[0], "image_id": 40}, {**predictions[0], "image_id": "x"}, *predictions[2:]]

    path = folder / "predictions.json"
    edit(path, change)
    text = message(folder)
    assert f"- {path}: 2 of 4 images have no prediction: 'three', 4" in text
    assert f"- {path}: 2 predictions are of images that the ground truth lacks: 40, 'x'" in text
    assert "that the ground truth lacks" not in message(folder, allow_extra=True)
    assert "have no prediction" not in message(folder, allow_missing=True)
    results = score(folder, allow_missing=True, allow_extra=True)
    assert [results["per_class"]["1"][name] for name in ("tp", "fp", "fn")] == [2, 0, 2]
    edit(path, lambda content: content["annotations"].append(content["annotations"][-1]))
    assert f"{path}, image 1: expected one prediction, got two" in message(folder, allow_missing=True, allow_extra=True)


def test_images_of_the_ground_truth_without_annotation(folder):
    edit(folder / "ground_truth.json", lambda content: content["annotations"].pop(1))
    assert f"{folder / 'ground_truth.json'}: 1 images have no annotation: 2" in message(folder)


def test_areas_that_disagree_are_rejected_recounted_or_trusted(folder):
    edit(folder / "ground_truth.json", lambda content: content["annotations"][2]["segments_info"][0].update(area=4))
    text = message(folder)
    assert text.startswith(
        f"{folder / 'ground_truth' / '2.png'} and {folder / 'ground_truth.json'}, image 'three', segment 1: "
    )
    assert "the declared area is 4, the map has 3 pixels" in text
    assert "--recount-areas" in text
    assert score(folder, areas="recount")["things"]["PQ"] == 100.0
    # 3 / (3 + 4 - 3) = 0.75 in one of four images.
    assert score(folder, areas="trust")["things"]["PQ"] == 93.75
    assert score(folder, mode="corrected")["things"]["PQ"] == 100.0
    assert "the declared area is 4" in message(folder, mode="corrected", areas="check")
    scored = score_panoptic(folder / "ground_truth.json", folder / "predictions.json", areas="trust")
    other = scored.metric.compute(scored.image_order)["other_mode"]
    assert other["mode"] == "corrected"
    assert other["PQ"] == 100.0
    assert other["reasons"] == ["1 image has ('three') areas that their map contradicts"]


@pytest.mark.parametrize("option", [{"mode": "strict"}, {"areas": "guess"}, {"workers": 0}, {"limit": 0}])
def test_invalid_options_are_rejected(folder, option):
    (name,) = option
    with pytest.raises(ValueError, match=f"^{name} must be"):
        score(folder, **option)
