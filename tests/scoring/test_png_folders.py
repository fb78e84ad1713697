"""The folder of the PNGs of a panoptic JSON is found where datasets and tools put it."""

import pytest

from segkit.scoring.panoptic import score_panoptic
from segkit.scoring.png_folders import find_png_folder
from segkit.utils.errors import DatasetError
from tests.helpers.prediction_files import two_images

NAMES = ("1.png", "2.png")


@pytest.mark.parametrize(
    ("json_name", "folder"),
    [
        ("annotations/panoptic_val2017.json", "annotations/panoptic_val2017"),
        ("annotations/panoptic_val2017.json", "panoptic_val2017"),
        ("annotations/panoptic_val2017.json", "annotations/panoptic_val2017/panoptic_val2017"),
        ("annotations/panoptic_val2017.json", "annotations/val2017"),
        ("panoptic_val2017.json", "annotations/panoptic_val2017"),
        ("val.json", "panoptic_val"),
        ("x/val.json", "panoptic_val"),
        ("x/panoptic.json", "x/panoptic"),
        ("x/predictions.json", "x/predictions"),
        ("x/predictions.json", "x/panoptic_seg"),
        ("x/predictions.json", "x"),
    ],
)
def test_usual_places(tmp_path, monkeypatch, json_name, folder):
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / json_name).parent.mkdir(exist_ok=True)
    (tmp_path / folder / "2.png").touch()  # a missing first PNG is no reason to look elsewhere
    assert find_png_folder(tmp_path / json_name, None, NAMES, is_prediction=True).resolve() == tmp_path / folder
    monkeypatch.chdir((tmp_path / json_name).parent)
    assert find_png_folder(json_name.rpartition("/")[2], None, NAMES, is_prediction=True).resolve() == tmp_path / folder


def test_images_beside_the_json_are_not_taken_for_its_pngs(tmp_path):
    """COCO's val2017 holds JPEGs: a folder must hold a PNG of the JSON."""
    for folder in ("annotations", "val2017", "panoptic_val2017"):
        (tmp_path / folder).mkdir()
    (tmp_path / "val2017/1.jpg").touch()
    (tmp_path / "panoptic_val2017/1.png").touch()
    json_path = tmp_path / "annotations/panoptic_val2017.json"
    assert find_png_folder(json_path, None, NAMES) == tmp_path / "panoptic_val2017"
    (tmp_path / "panoptic_val2017/1.png").unlink()
    with pytest.raises(DatasetError) as raised:
        find_png_folder(json_path, None, NAMES, is_prediction=True)
    assert str(raised.value).startswith(f"{tmp_path}/annotations/panoptic_val2017: no such folder of PNGs")
    assert f", {tmp_path}/val2017, " in str(raised.value), "the places that were looked at"
    assert str(raised.value).endswith("; name the folder (--pred-folder)")


def test_predictions_are_not_taken_for_ground_truth(tmp_path):
    for name in ("panoptic", "predictions"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    with pytest.raises(DatasetError, match="ground_truth: no such folder of PNGs"):
        find_png_folder(tmp_path / "ground_truth.json", None, NAMES)


def test_a_named_folder_is_taken_as_it_is(tmp_path):
    assert find_png_folder(tmp_path / "x.json", tmp_path, NAMES) == tmp_path
    with pytest.raises(DatasetError, match=r"absent: no such folder of PNGs; name another \(--gt-folder\)"):
        find_png_folder(tmp_path / "x.json", tmp_path / "absent", NAMES)


def test_cocos_own_tree_and_a_run_are_scored(tmp_path):
    ground_truth, predictions = two_images(tmp_path / "all")
    expected = score_panoptic(ground_truth, predictions).metric.compute()
    for path, name, json_folder in (
        (ground_truth, "panoptic_val2017", "annotations"),
        (predictions, "predictions", "."),
    ):
        (tmp_path / json_folder).mkdir(exist_ok=True)
        path.rename(tmp_path / json_folder / f"{name}.json")
        path.with_suffix("").rename(tmp_path / ("panoptic" if name == "predictions" else name))
    scored = score_panoptic(tmp_path / "annotations/panoptic_val2017.json", tmp_path / "predictions.json")
    assert scored.metric.compute() == expected
