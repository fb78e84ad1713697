"""The kind of predictions is found from their keys."""

import json

import pytest

from segkit.scoring.prediction_kinds import find_prediction_kind
from segkit.utils.errors import DatasetError

MASK = {"size": [2, 2], "counts": "04"}


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"annotations": [{"image_id": 1, "file_name": "1.png", "segments_info": []}]}, "panoptic"),
        ([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}], "instances"),
        ([{"file_name": "1.jpg", "image_id": 1, "category_id": 1, "segmentation": MASK, "score": 1}], "instances"),
        ([{"file_name": "1.jpg", "category_id": 1, "segmentation": MASK}], "semantic"),
        ([], "instances"),
    ],
)
def test_files(tmp_path, content, kind):
    path = tmp_path / "predictions.json"
    path.write_text("\n " + json.dumps(content))
    assert find_prediction_kind(path) == kind


def test_folders_hold_label_maps_and_a_missing_file_is_an_error(tmp_path):
    assert find_prediction_kind(tmp_path) == "semantic"
    with pytest.raises(DatasetError, match=r"absent\.json: expected a file, found nothing"):
        find_prediction_kind(tmp_path / "absent.json")
