"""`segkit evaluate video`: VPQ of VIPSeg's files, in shards, and files that do not fit together."""

import json

import pytest

from segkit.cli.main import main
from tests.helpers.video_files import CAR, CLIP, SKY, SWITCHED, vipseg_tree


@pytest.fixture
def run(capsys, monkeypatch):
    """Run `segkit evaluate` with these arguments: (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "120")

    def evaluate(*arguments):
        code = main(["evaluate", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return evaluate


def test_an_id_switch(run, tmp_path):
    gt, pred = vipseg_tree(tmp_path, {"a": CLIP}, {"a": SWITCHED})
    out = tmp_path / "metrics.json"
    code, printed, error = run("video", "--gt", gt, "--pred", pred, "--output", out, "--per-class", "--workers", 1)
    assert (code, error) == (0, "")
    results = json.loads(out.read_text())["video_panoptic_seg"]
    # Sky is perfect. The car by window: 100; 2 matches, 2 fp, 1 fn: 200 / 3.5; two matches of 2 / 3, 2 fp: 400 / 9; 0.
    car = [100, 200 / 3.5, 400 / 9, 0]
    assert [results["per_class"][str(CAR)][f"VPQ{k}"] for k in (1, 2, 3, 4)] == pytest.approx(car)
    assert results["per_class"][str(SKY)]["VPQ"] == 100
    assert results["VPQ_th"] == pytest.approx(sum(car) / 4)
    assert results["VPQ"] == pytest.approx((sum(car) / 4 + 100) / 2)
    assert results["per_window"]["4"]["PQ"] == pytest.approx(50)
    # The car is half covered by two objects of IoU 1 / 2; the classes are right.
    assert [results[name] for name in ("STQ", "AQ", "STQ_IoU")] == pytest.approx([100 * 0.5**0.5, 50, 100])
    assert "70.7" in printed
    assert "video_panoptic_seg" in printed
    assert f"{results['VPQ']:.1f}" in printed


def test_merged_shards_give_the_same_bytes_as_one_run(run, tmp_path):
    gt, pred = vipseg_tree(tmp_path, {"a": CLIP, "b": CLIP, 3: CLIP}, {"a": SWITCHED, "b": CLIP, 3: SWITCHED})
    files = ["video", "--gt", gt, "--pred", pred, "--workers", 1]
    whole, joined = tmp_path / "whole.json", tmp_path / "joined.json"
    assert run(*files, "--output", whole)[0] == 0
    parts = [tmp_path / f"{index}.npz" for index in (1, 2, 3, 4)]
    for index, part in enumerate(parts, 1):
        assert run(*files, "--shard", f"{index}/4", "--save-counts", part)[0] == 0
    assert run("merge", *reversed(parts), "--output", joined)[0] == 0
    assert joined.read_bytes() == whole.read_bytes()


def test_missing_and_extra_frames_and_videos(run, tmp_path):
    three = {name: frame for name, frame in CLIP.items() if name != "00000008"}
    gt, pred = vipseg_tree(tmp_path, {"a": CLIP, "b": CLIP}, {"a": {**three, "00000009": CLIP["00000008"]}, "c": CLIP})
    files = ["video", "--gt", gt, "--pred", pred, "--workers", 1, "--output", tmp_path / "out.json"]
    code, _, error = run(*files)
    assert code == 1
    for words in (
        "1 of 2 videos have no prediction: 'b'",
        "1 predictions are of videos that the ground truth lacks: 'c'",
        "1 of 4 frames have no prediction: 'a/00000008'",
        "1 predictions are of frames that the ground truth lacks: 'a/00000009'",
    ):
        assert words in error.replace("[", "").replace("]", ""), error
    assert run(*files, "--allow-missing", "--allow-extra")[0] == 0
    results = json.loads((tmp_path / "out.json").read_text())["video_panoptic_seg"]
    # One frame: of 8 cars 3 match: 3 / (3 + 0.5 * 5). Four frames: one of two matches, of IoU 3 / 4: 0.75 / 1.5.
    assert results["VPQ1"] == pytest.approx(100 * 3 / 5.5)
    assert results["VPQ4"] == pytest.approx(50)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--windows", 2, 1], "--windows: expected ascending numbers of frames from 1, got [2, 1]"),
        (["--gt-folder", "nowhere"], "nowhere: no such folder of PNGs; name the folder (--gt-folder)"),
    ],
)
def test_wrong_options(run, tmp_path, options, line):
    gt, pred = vipseg_tree(tmp_path, {"a": CLIP}, {"a": CLIP})
    code, _, error = run("video", "--gt", gt, "--pred", pred, *options)
    assert code != 0
    assert line in error
    assert "Traceback" not in error


def test_errors_name_the_file(run, tmp_path):
    tall = {name: ([[1]], {1: CAR}) for name in CLIP}
    gt, pred = vipseg_tree(tmp_path, {"a": CLIP}, {"a": tall})
    code, _, error = run("video", "--gt", gt, "--pred", pred)
    assert code == 1
    assert "pan_pred/a/00000005.png: expected 2 x 4 pixels (height x width), got 1 x 1" in error
    (tmp_path / "submission/pan_pred/a/00000005.png").unlink()
    assert "00000005.png: expected a file, found nothing" in run("video", "--gt", gt, "--pred", pred)[2]


def test_undefined_metrics_are_explained(run, tmp_path):
    two = {name: CLIP[name] for name in [*CLIP][:2]}
    gt, pred = vipseg_tree(tmp_path, {"a": two}, {"a": two})
    out = tmp_path / "out.json"
    assert run("video", "--gt", gt, "--pred", pred, "--output", out)[0] == 0
    results = json.loads(out.read_text())
    assert (results["video_panoptic_seg"]["VPQ2"], results["video_panoptic_seg"]["VPQ"]) == (100, None)
    assert "video_panoptic_seg VPQ3 is undefined: no video with segments that count has 3 frames" in results["notes"]
