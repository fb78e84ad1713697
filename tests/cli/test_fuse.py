"""`segkit fuse` on small files: what it writes and prints, its exit codes, and its errors for bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from segkit.cli.main import main
from segkit.fusion import FUSION_METHODS, LOGITS, HeuristicFusion, build_fusion
from segkit.fusion.class_keys import resolve_class_keys
from segkit.scoring.fusion.options import get_thing_names
from segkit.scoring.panoptic import score_panoptic
from tests.helpers.saved_heads import CATEGORIES, write


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def run(capsys: Any) -> Any:
    """Run `segkit fuse`: (exit code, stdout, stderr)."""

    def fuse(*arguments: Any) -> tuple[int, str, str]:
        code = main(["fuse", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return fuse


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path, 6)


def test_run_writes_files_that_evaluate_reads(run: Any, files: Any, tmp_path: Path) -> None:
    saved, ground_truth = files
    out = tmp_path / "new/out"
    texts = ["stuff_area_limit_px=9", "class_score_thresholds={cow: 0.8}", "nms=box"]
    first = [
        "run",
        "--predictions",
        saved,
        "--method",
        "heuristic",
        "--set",
        *texts,
        "--output",
        out,
        "--gt",
        ground_truth,
    ]
    code, printed, error = run(*first, "--workers", 1)
    assert (code, error) == (0, "")
    scored = score_panoptic(ground_truth, out / "panoptic.json")
    pq = scored.metric.compute(scored.image_order)["PQ"]
    assert printed.splitlines()[0] == str(out / "panoptic.json")
    assert f"{pq:.1f}" in printed
    assert not (out / "dropped_segments.json").exists()
    cows = [
        segment["score"]
        for annotation in json.loads((out / "panoptic.json").read_text())["annotations"]
        for segment in annotation["segments_info"]
        if segment["category_id"] == 11
    ]
    assert cows
    assert min(cows) >= 0.8
    rejected_run = run(*first)
    assert rejected_run[0] == 1
    assert (
        "the output exists already: panoptic.json, panoptic; name another folder, or add --overwrite" in rejected_run[2]
    )
    assert run(*first, "--overwrite")[0] == 0


def test_run_writes_explanations(run: Any, files: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, printed, error = run(
        "run", "--predictions", files[0], "--method", "heuristic", "--output", out, "--explain", "--gt", files[1]
    )
    assert (code, error) == (0, "")
    dropped_segments = json.loads((out / "dropped_segments.json").read_text())
    assert len(dropped_segments) == 6
    assert {segment["reason"] for image in dropped_segments for segment in image["dropped_segments"]} >= {
        "score",
        "area",
        "overlap",
    }
    assert "[red]cat" in printed
    assert "The costliest" in printed
    page = (out / "report.html").read_text()
    assert "Why segments were dropped or shrunk" in page
    assert "panoptic_seg" in page


def test_the_page_of_an_earlier_run_is_removed(run: Any, files: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = ["run", "--predictions", files[0], "--method", "heuristic", "--output", out, "--workers", 1]
    assert run(*first, "--explain")[0] == 0
    assert run(*first, "--overwrite")[0] == 0
    assert sorted(path.name for path in out.iterdir()) == ["panoptic", "panoptic.json"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other/report.html").write_text("of something else")
    code, _, error = run(*first[:5], "--output", tmp_path / "other")
    assert code == 1
    assert "the output exists already: report.html" in error


def test_a_folder_of_ground_truth_without_its_json_is_rejected(run: Any, files: Any, tmp_path: Path) -> None:
    arguments = ["run", "--predictions", files[0], "--method", "heuristic", "--output", tmp_path / "out"]
    code, _, error = run(*arguments, "--gt-folder", tmp_path / "ground_truth")
    assert code == 1
    assert "add --gt FILE" in error


def test_sweep_writes_all_files_and_a_usable_best_config(run: Any, files: Any, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    texts = ["heuristic.stuff_area_limit_px=1,50", "overlap_threshold=0.5,0.8", "nms=none"]
    arguments = ["sweep", "--predictions", files[0], "--gt", files[1], "--methods", "heuristic", "--per-class"]
    code, printed, error = run(*arguments, "--set", *texts, "--output", out, "--seed", 1)
    assert (code, error) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == ["best.yaml", "sweep.html", "sweep.json", "sweep.png"]
    sweep = json.loads((out / "sweep.json").read_text())
    assert len(sweep["settings"]) == 2 * 2 * 5 + 1
    assert (sweep["seed"], sweep["images"]) == (1, {"all": 6, "tuning": 3, "held_out": 3})
    node = yaml.safe_load((out / "best.yaml").read_text())["MODEL"]["PANOPTIC"]["FUSION"]
    best = sweep["methods"]["heuristic"][sweep["best"]["step"]]
    assert node["OPTIONS"] == {key: value for key, value in best["options"].items() if value != {}}
    build_fusion(node["NAME"], **resolve_class_keys(node["OPTIONS"], get_thing_names(CATEGORIES)))
    assert "Tuned on 3 images, measured on the 3 held-out images" in printed
    assert "Best on the tuning split: heuristic" in printed
    again = tmp_path / "again"
    assert run(*arguments, "--set", *texts, "--output", again, "--seed", 1, "--workers", 2)[0] == 0
    assert (again / "sweep.json").read_bytes() == (out / "sweep.json").read_bytes()


def test_sweep_settings_score_the_same_as_run(run: Any, files: Any, tmp_path: Path) -> None:
    """`run` with each setting of sweep.json gives the same PQ, to the last bit."""
    texts = ["stuff_area_limit_px=1,50,300", "overlap_threshold=0.8", "nms=mask", "instance_score_threshold=0.3"]
    first = ["--predictions", files[0], "--gt", files[1]]
    assert run("sweep", *first, "--methods", "heuristic", "--set", *texts, "--output", tmp_path / "sweep")[0] == 0
    settings = json.loads((tmp_path / "sweep/sweep.json").read_text())["settings"]
    assert len(settings) == 4
    for index, setting in enumerate(settings):
        values = [f"{option}={json.dumps(value)}" for option, value in setting["options"].items()]
        out = tmp_path / str(index)
        assert run("run", *first, "--method", setting["method"], "--set", *values, "--output", out)[0] == 0
        scored = score_panoptic(files[1], out / "panoptic.json")
        assert scored.metric.compute(scored.image_order)["PQ"] == setting["all"]["PQ"]


def test_methods_are_listed_with_options_and_needs(run: Any) -> None:
    code, printed, _ = run("methods")
    assert code == 0
    for name in FUSION_METHODS:
        assert name in printed
    assert all(text in printed for text in ("overlap_threshold", "float", "0.5", "'none'", "Needs crops"))


def test_priors_are_written_and_the_most_certain_are_printed(run: Any, files: Any, tmp_path: Path) -> None:
    out = tmp_path / "deep/priors.json"
    code, printed, error = run("priors", "--gt", files[1], "--output", out)
    assert (code, error) == (0, "")
    content = json.loads(out.read_text())
    assert [thing["name"] for thing in content["things"]] == ["[red]cat", "dog", "cow"]
    assert content["pairs"]
    assert "The clearest pairs" in printed
    assert "[red]cat" in printed
    again = tmp_path / "again.json"
    assert run("priors", "--gt", files[1], "--output", again, "--workers", 2)[0] == 0
    assert again.read_bytes() == out.read_bytes()


def test_priors_of_whole_masks(run: Any, tmp_path: Path) -> None:
    """A dog in columns 0 to 3 occludes a cat in columns 2 to 5: the common columns 2 and 3 are the dog's."""
    import numpy as np
    from PIL import Image

    from segkit.structures import ids_to_rgb

    (tmp_path / "ground_truth").mkdir()
    Image.fromarray(ids_to_rgb(np.array([[1, 1, 1, 1, 2, 2]] * 2))).save(tmp_path / "ground_truth/a.png")
    image = {"id": 1, "file_name": "a.jpg", "height": 2, "width": 6}
    infos = [{"id": 1, "category_id": 7, "area": 8, "iscrowd": 0}, {"id": 2, "category_id": 2, "area": 4, "iscrowd": 0}]
    annotation = {"image_id": 1, "file_name": "a.png", "segments_info": infos}
    table = CATEGORIES.to_coco()
    (tmp_path / "ground_truth.json").write_text(
        json.dumps({"images": [image], "annotations": [annotation], "categories": table})
    )
    common = {"image_id": 1, "iscrowd": 0}
    objects = [
        {
            **common,
            "id": 1,
            "category_id": 7,
            "area": 8,
            "bbox": [0, 0, 4, 2],
            "segmentation": [[0, 0, 4, 0, 4, 2, 0, 2]],
        },
        {
            **common,
            "id": 2,
            "category_id": 2,
            "area": 8,
            "bbox": [2, 0, 4, 2],
            "segmentation": [[2, 0, 6, 0, 6, 2, 2, 2]],
        },
    ]
    things = [entry for entry in table if entry["isthing"]]
    content = {"images": [image], "annotations": objects, "categories": things}
    (tmp_path / "instances.json").write_text(json.dumps(content))
    arguments = ["priors", "--gt", tmp_path / "ground_truth.json", "--output", tmp_path / "priors.json"]
    assert run(*arguments, "--instances", tmp_path / "instances.json")[0] == 0
    pairs = json.loads((tmp_path / "priors.json").read_text())["pairs"]
    assert pairs == [{"occluder": 7, "occluded": 2, "count": 1, "reverse_count": 0}]
    code, printed, _ = run(*arguments)  # the hulls of what is seen do not overlap
    assert code == 0
    assert "there is nothing to learn" in printed
    things[0]["name"] = "tiger"
    (tmp_path / "instances.json").write_text(json.dumps(content))
    code, _, error = run(*arguments, "--instances", tmp_path / "instances.json")
    assert code == 1
    assert "got other categories: 2" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--method", "nothing"], "unknown fusion method 'nothing'"),
        (["run", "--method", "heuristic", "--set", "overlap=0.3"], "no option ['overlap']"),
        (["run", "--method", "heuristic", "--set", "class_score_thresholds={cowl: 0.3}"], "did you mean 'cow'"),
        (["sweep", "--methods", "heuristic", "nothing"], "unknown fusion method 'nothing'"),
        (["sweep", "--methods", "heuristic", "--set", "overlap=0.3"], "none of the methods"),
        (["sweep", "--methods", "heuristic", "--set", "nms=some"], "nms must be one of"),
    ],
)
def test_invalid_options_are_reported_before_fusion(
    run: Any, files: Any, tmp_path: Path, arguments: list[str], message: str
) -> None:
    out = tmp_path / "out"
    code, printed, error = run(*arguments, "--predictions", files[0], "--gt", files[1], "--output", out)
    assert (code, printed) == (1, "")
    assert error.startswith("segkit fuse: ")
    assert error.count("\n") == 1
    assert message in error
    assert not out.exists() or not list(out.iterdir())


def test_invalid_files_are_rejected(run: Any, files: Any, tmp_path: Path) -> None:
    other = write(tmp_path / "other", 3, seed=5, image_ids=[1, 2, 3])
    (tmp_path / "file").touch()
    single = write(tmp_path / "single", 1)
    method, methods = ["--method", "heuristic"], ["--methods", "heuristic"]
    for arguments, message in (
        (["run", *method, "--predictions", files[0], "--gt", other[1]], "3 of the 3 ground-truth images are not saved"),
        (
            ["sweep", *methods, "--predictions", files[0], "--gt", other[1]],
            "6 of the 6 saved images have no ground truth",
        ),
        (["run", *method, "--predictions", tmp_path / "none"], "none"),
        (["sweep", *methods, "--predictions", single[0], "--gt", single[1]], "expected at least 2 images"),
        (["sweep", *methods, "--predictions", files[0], "--gt", tmp_path / "no.json"], "no.json"),
    ):
        code, printed, error = run(*arguments, "--output", tmp_path / "out")
        assert (code, printed, error.count("\n")) == (1, "", 1)
        assert message in error
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    for command in (["run", *method], ["sweep", *methods]):
        code, _, error = run(*command, "--predictions", files[0], "--gt", files[1], "--output", tmp_path / "file")
        assert code == 1
        assert "cannot be written" in error


def test_the_ground_truth_is_never_overwritten(run: Any, files: Any, tmp_path: Path) -> None:
    """The ground truth is DIR/panoptic.json, as in datasets, and DIR is the output."""
    saved, ground_truth = files
    ground_truth.rename(tmp_path / "panoptic.json")
    ground_truth.with_suffix("").rename(tmp_path / "panoptic")
    before = {path: path.read_bytes() for path in (tmp_path / "panoptic").iterdir()}
    arguments = ["run", "--predictions", saved, "--method", "heuristic", "--output", tmp_path, "--overwrite"]
    code, _, error = run(*arguments, "--gt", tmp_path / "panoptic.json")
    assert code == 1
    assert "--output would overwrite an input, panoptic.json" in error
    (tmp_path / "panoptic/deep").mkdir()
    ground_truth = (tmp_path / "panoptic.json").rename(tmp_path / "ground_truth.json")
    error = run(*arguments, "--gt", ground_truth, "--gt-folder", tmp_path / "panoptic/deep")[2]
    assert "--output would overwrite an input, panoptic" in error
    (tmp_path / "panoptic/deep").rmdir()
    assert {path: path.read_bytes() for path in (tmp_path / "panoptic").iterdir()} == before


def test_methods_with_missing_inputs_are_named_before_the_sweep(run: Any, tmp_path: Path, monkeypatch: Any) -> None:
    class Greedy(HeuristicFusion):
        needs = frozenset({LOGITS})

    monkeypatch.setitem(FUSION_METHODS, "greedy", Greedy)
    saved, ground_truth = write(tmp_path, 3, logits=False)
    first = ["sweep", "--predictions", saved, "--gt", ground_truth, "--output", tmp_path / "out"]
    code, printed, error = run(*first, "--methods", "heuristic", "greedy")
    assert (code, printed) == (1, "")
    assert "Greedy needs ['logits']" in error


def test_wrong_usage(run: Any) -> None:
    for arguments in ([], ["nothing"], ["run"], ["sweep", "--seed", "-1"], ["run", "--workers", "0"]):
        assert run(*arguments)[0] == 2
