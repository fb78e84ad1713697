"""Image ids that are written in two ways are named as such, with an example of both."""

import json

import pytest

from segkit.scoring.image_ids import find_rewritten
from segkit.scoring.instances import score_instances
from segkit.scoring.panoptic import score_panoptic
from segkit.scoring.semantic import score_semantic
from segkit.utils.errors import DatasetError
from tests.helpers.prediction_files import instances_files, semantic_files, two_images

FORMS = {
    "zeros": (lambda i: f"{i:012}", "expected 2 (an integer), got '000000000002' (a text); write integers"),
    "text": (lambda i: str(i), "expected 2 (an integer), got '2' (a text); write integers"),
    "file name": (lambda i: f"{i:012}.jpg", "expected 2 (an integer), got '000000000002.jpg' (a text); write integers"),
}


def change_ids(path, form):
    content = json.loads(path.read_text())
    for entry in content if isinstance(content, list) else content["annotations"]:
        entry["image_id"] = form(entry["image_id"])
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", FORMS)
def test_predictions_against_integers(tmp_path, name):
    form, expected = FORMS[name]
    ground_truth, predictions = two_images(tmp_path / "panoptic")
    change_ids(predictions, form)
    text = f"{predictions}: 2 of 2 image ids are written in another way than in the ground truth: "
    for options in ({}, {"allow_missing": True, "allow_extra": True}):
        with pytest.raises(DatasetError) as raised:
            score_panoptic(ground_truth, predictions, **options)
        assert str(raised.value).startswith(text + expected.replace("2", "1"))
        assert "have no prediction" not in str(raised.value), "one problem, not three"
    _, ground_truth, results = instances_files(tmp_path / "instances")
    change_ids(results, form)
    with pytest.raises(DatasetError) as raised:
        score_instances(ground_truth, results, iou_types=["bbox"])
    text = f"{results}: 5 of 5 image ids are written in another way than in the ground truth: "
    assert str(raised.value).startswith(text + expected.replace("2", "5"))


def test_texts_are_expected_with_their_zeros(tmp_path):
    ground_truth, predictions = two_images(tmp_path)
    content = json.loads(ground_truth.read_text())
    for image, annotation in zip(content["images"], content["annotations"], strict=True):
        image["id"] = annotation["image_id"] = f"{image['id']:012}"
    ground_truth.write_text(json.dumps(content))
    expected = "expected '000000000001' (a text), got "
    with pytest.raises(DatasetError, match=r"got 1 \(an integer\); write texts in quotes, with all zeros") as raised:
        score_panoptic(ground_truth, predictions)
    assert expected in str(raised.value)
    change_ids(predictions, str)
    with pytest.raises(DatasetError, match=r"got '1' \(a text\); write them letter by letter"):
        score_panoptic(ground_truth, predictions)


def test_names_of_label_maps(tmp_path):
    _, gt, pred = semantic_files(tmp_path)
    for path in [*pred.iterdir()]:
        path.rename(pred / f"000{path.name}")
    with pytest.raises(DatasetError, match=r"pred: 5 of 5 image ids .* expected '0' \(a text\), got '0000' \(a text\)"):
        score_semantic(gt, pred)


def test_only_unmatched_ids_are_paired():
    assert find_rewritten([1, "02", 3], ["x", "1", "2", 4]) == {"1": 1, "2": "02"}
    assert find_rewritten(["a/b.jpg"], ["a/b"]) == {"a/b": "a/b.jpg"}
