"""Detectron2's semantic predictions."""

import json

import numpy as np
import pytest

from segkit.formats import label_images
from segkit.structures import mask_to_rle
from segkit.utils.errors import DatasetError

LABELS = np.array([[0, 1, 1], [3, 2, 0]], dtype=np.uint8)


def entry(mask, category_id=1, name="a.jpg"):
    return {"file_name": name, "category_id": category_id, "segmentation": mask_to_rle(np.array(mask, dtype=bool))}


def raise_issue(error):
    raise error


def test_a_list_of_results_is_merged_into_maps(tmp_path):
    path = tmp_path / "sem_seg_predictions.json"
    masks = {label: label == LABELS for label in range(4)}
    path.write_text(json.dumps([entry(mask, 10 + label) for label, mask in masks.items()] + [entry([[1]], 1, "b.jpg")]))
    results = label_images.read_semantic_predictions(path, raise_issue)
    assert {name: [*masks] for name, masks in results.items()} == {"a.jpg": [10, 11, 12, 13], "b.jpg": [1]}
    channels = label_images.merge_class_masks(results["a.jpg"], {10: 0, 11: 1, 12: 2, 13: 3}, (2, 3), "a")
    np.testing.assert_array_equal(channels, LABELS)


def test_masks_that_do_not_form_a_map_raise_a_dataset_error(tmp_path):
    full, half = entry([[1, 1]])["segmentation"], entry([[1, 0]])["segmentation"]
    channel_by_category = {1: 0, 2: 1}
    for masks, problem in (
        ({1: half}, "expected every pixel in one class's mask, 1 pixels are in none"),
        ({1: half, 2: full}, "1 pixels are in a second one"),
        ({5: full}, "expected a category_id among 1, 2, got 5"),
        ({1: entry([[1], [1]])["segmentation"]}, r", category 1: expected RLE with a size of \[1, 2\]"),
        ({1: {"size": [1, 2], "counts": "~~"}}, "run lengths"),
    ):
        with pytest.raises(DatasetError, match=f"^place.*{problem}"):
            label_images.merge_class_masks(masks, channel_by_category, (1, 2), "place")


def test_invalid_results_raise_a_dataset_error_or_are_reported(tmp_path):
    path = tmp_path / "results.json"
    for content, problem in (
        ({"annotations": []}, "expected Detectron2's list .*, got a dict"),
        ([{"image_id": 1, "category_id": 1, "segmentation": {}}], "this is a list of instance results"),
        ([3], "expected the list to hold objects, got 3 at index 0"),
        ([{"file_name": 3}], "entry 0: expected `file_name` to be a string"),
        ([entry([[1]]) | {"category_id": "1"}], "expected `category_id` to be an integer"),
        ([entry([[1]]), entry([[1]])], r"entry 1: expected one mask per class of a\.jpg, got two of 1"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(DatasetError, match=rf"results\.json.*{problem}"):
            label_images.read_semantic_predictions(path, raise_issue)
    issues = []
    path.write_text(json.dumps([{"file_name": 3}, entry([[1]]), {"file_name": "a.jpg"}]))
    assert [*label_images.read_semantic_predictions(path, issues.append)["a.jpg"]] == [1]
    assert len(issues) == 2
