"""PNGs whose names a JSON spells otherwise than the file system are scored, as they are read elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segkit.cli.main import main
from tests.helpers import saved_heads

HEIGHT, WIDTH = saved_heads.SIZE_HW
WHOLE = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}


@pytest.mark.parametrize(
    ("in_json", "in_folder"),
    [
        ("sub\\{}.png", "sub/{}.png"),
        ("a%20{}.png", "a {}.png"),
        ("e\u0301 {}.png", "\u00e9 {}.png"),
        ("\u00e9 {}.png", "e\u0301 {}.png"),
        ("{}.PNG", "{}.png"),
    ],
    ids=["backslashes", "URL escapes", "NFD in the JSON", "NFC in the JSON", "letter case"],
)
def test_every_scorer_finds_them(in_json: str, in_folder: str, tmp_path: Path) -> None:
    saved, gt_json = saved_heads.write(tmp_path / "heads", 3)
    fuse = ["fuse", "run", "--predictions", str(saved), "--method", "heuristic", "--output", str(tmp_path / "out")]
    assert main(fuse) == 0
    pred_json = tmp_path / "out/panoptic.json"
    for path, folder in ((gt_json, tmp_path / "heads/ground_truth"), (pred_json, tmp_path / "out/panoptic")):
        content = json.loads(path.read_text())
        for annotation in content["annotations"]:
            png, stem = folder / annotation["file_name"], Path(annotation["file_name"]).stem
            (folder / in_folder.format(stem)).parent.mkdir(exist_ok=True)
            png.rename(folder / in_folder.format(stem))
            annotation["file_name"] = in_json.format(stem)
        path.write_text(json.dumps(content))
    gt, out = ["--gt", str(gt_json)], str(tmp_path / "results")
    images = json.loads(gt_json.read_text())["images"]
    mask = {"category_id": saved_heads.CLASSES[0][0], "score": 0.5, "segmentation": WHOLE}
    results, labels = tmp_path / "results.json", tmp_path / "sem_seg_predictions.json"
    results.write_text(json.dumps([{**mask, "image_id": image["id"]} for image in images]))
    labels.write_text(json.dumps([{**mask, "file_name": image["file_name"]} for image in images]))
    search = ["--predictions", str(saved), "--methods", "heuristic", "--set", "overlap_threshold=0.4"]
    assert main(["evaluate", "panoptic", *gt, "--pred", str(pred_json)]) == 0
    assert main(["evaluate", "instances", *gt, "--pred", str(results)]) == 0
    assert main(["evaluate", "semantic", *gt, "--pred", str(labels), "--thing-channels", "per_class"]) == 0
    assert main(["fuse", "priors", *gt, "--output", f"{out}.json"]) == 0
    assert main(["fuse", "sweep", *gt, *search, "--output", out]) == 0
