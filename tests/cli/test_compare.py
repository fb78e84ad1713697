"""`segkit compare`: comparisons of two predictions, and errors for invalid input."""

import json

import numpy as np
import pytest

from segkit.cli.main import main
from segkit.formats import png
from segkit.metrics import AveragePrecision, SemanticIoU
from segkit.metrics.panoptic.bootstrap import compare
from segkit.scoring import counts_file
from segkit.scoring.semantic import score_semantic
from segkit.structures import mask_to_rle
from tests.helpers.prediction_files import CAR, DOG, SKY, cityscapes_files, error_line, write_panoptic

ROWS = [[1, 1, 2, 2], [1, 1, 2, 2]]
RIGHT, WRONG = {1: CAR, 2: SKY}, {1: DOG, 2: SKY}


@pytest.fixture
def run(capsys, monkeypatch):
    """Run `segkit` with these arguments: (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "80")

    def segkit(*arguments):
        code = main([*map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return segkit


@pytest.fixture
def files(tmp_path):
    """The ground truth, predictions that are wrong in half of the 8 images, and perfect ones."""
    ground_truth = write_panoptic(tmp_path, "ground_truth", dict.fromkeys(range(8), (ROWS, RIGHT)))
    bad = write_panoptic(tmp_path, "bad", {i: (ROWS, RIGHT if i % 2 else WRONG) for i in range(8)})
    good = write_panoptic(tmp_path, "good", dict.fromkeys(range(8), (ROWS, RIGHT)))
    return ground_truth, bad, good


@pytest.fixture
def counts(run, files, tmp_path):
    """Saved counts of the bad and of the good predictions."""
    ground_truth, *predictions = files
    paths = [tmp_path / f"{path.stem}.npz" for path in predictions]
    for path, prediction in zip(paths, predictions, strict=True):
        saved = run("evaluate", "panoptic", "--gt", ground_truth, "--pred", prediction, "--save-counts", path)
        assert saved[0] == 0
    return paths


def test_metrics_and_differences_of_two_predictions(run, counts, tmp_path):
    """A: car 4 matched, 4 missed: 66.7; dog 4 false: 0; sky 100: PQ 55.6. B: car and sky 100, no dog: PQ 100."""
    out = tmp_path / "deep/compared.json"
    code, printed, error = run("compare", *counts, "--output", out, "--samples", 200, "--per-class")
    assert (code, error) == (0, "")
    compared = json.loads(out.read_text())["panoptic_seg"]
    assert (compared["PQ"]["A"], compared["PQ"]["B"]) == (pytest.approx(500 / 9), 100)
    assert compared["PQ"]["conclusion"] == "better"
    a, b = (counts_file.load(path).metric for path in counts)
    assert compared == compare(a.table(), b.table(), a.categories, samples=200)
    line = printed.splitlines()[-1]
    interval = f"{compared['PQ']['low']:+.2f} to {compared['PQ']['high']:+.2f}"
    assert line == f"B is better than A by 44.44 points of PQ (95% interval {interval})."
    rows = [[cell.strip() for cell in row.split("│")[1:-1]] for row in printed.splitlines() if "│" in row]
    assert rows[0] == ["PQ", "55.6", "100.0", "+44.44", interval, "better"]
    assert [row[0] for row in rows if row[0] not in ("PQ", "SQ", "RQ", "PQ_th", "PQ_st")] == ["[red]car", "sky", "dog"]
    assert rows[-1] == ["dog", "0.0", "–", "–", "–", "–"]
    assert max(map(len, printed.splitlines()[1:])) <= 80
    assert run("compare", *reversed(counts))[1].splitlines()[-1].startswith("B is worse than A by 44.44 points of PQ")


def test_equal_predictions_have_no_difference(run, counts, tmp_path):
    out = tmp_path / "compared.json"
    code, printed, _ = run("compare", counts[0], counts[0], "--output", out)
    assert code == 0
    last = "No clear difference between A and B: +0.00 points of PQ (95% interval +0.00 to +0.00)."
    assert printed.splitlines()[-1] == last
    assert "car" not in printed, "classes that do not differ"
    quality = json.loads(out.read_text())["panoptic_seg"]["PQ"]
    assert (quality["difference"], quality["low"], quality["high"], quality["share_better"]) == (0, 0, 0, 0)
    assert quality["conclusion"] == "no clear difference"


def test_predictions_are_read_from_json_files(run, files, counts):
    ground_truth, bad, good = files
    whole = run("compare", *counts)
    assert run("compare", bad, good, "--gt", ground_truth, "--workers", 2)[1] == whole[1]
    assert (
        run("compare", counts[0], good, "--gt", ground_truth, "--gt-folder", ground_truth.with_suffix(""))[1]
        == whole[1]
    )
    assert "good.json: predictions need --gt, the ground truth" in error_line(run("compare", counts[0], good))


def test_pngs_of_predictions_may_be_anywhere(run, files, counts, tmp_path):
    """The option that the error names is one of the command."""
    ground_truth, bad, good = files
    (tmp_path / "elsewhere").mkdir()
    folders = [path.with_suffix("").rename(tmp_path / "elsewhere" / path.stem) for path in (bad, good)]
    assert error_line(run("compare", bad, good, "--gt", ground_truth)).endswith("name the folder (--pred-folder)\n")
    assert run("compare", bad, good, "--gt", ground_truth, "--pred-folder", *folders) == run("compare", *counts)


def test_options_are_applied(run, files, tmp_path):
    _ground_truth, bad, good = files
    wrong = write_panoptic(tmp_path, "wrong", dict.fromkeys(range(9), (ROWS, RIGHT)), areas=5)
    line = error_line(run("compare", bad, good, "--gt", wrong, "--problems", 3))
    assert "--allow-missing" in line
    assert "--recount-areas" in error_line(run("compare", bad, good, "--gt", wrong, "--allow-missing"))
    code, printed, _ = run("compare", bad, good, "--gt", wrong, "--allow-missing", "--recount-areas")
    assert code == 0
    assert "paired bootstrap over 9 images" in printed


def test_one_image_gives_no_interval(run, tmp_path):
    ground_truth = write_panoptic(tmp_path, "ground_truth", {"only": (ROWS, RIGHT)})
    bad = write_panoptic(tmp_path, "bad", {"only": (ROWS, WRONG)})
    code, printed, error = run("compare", bad, ground_truth, "--gt", ground_truth)
    assert (code, error) == (0, "")
    assert "No interval: images with segments: 1" in printed
    assert "│ +66.67 │ of 1 image │ too few objects" in " ".join(printed.split()), "A: car and dog 0, sky 100"


def test_invalid_inputs_are_reported(run, files, counts, tmp_path):
    ground_truth, _bad, good = files
    fewer = write_panoptic(tmp_path, "fewer", dict.fromkeys(range(7), (ROWS, RIGHT)))
    saved = tmp_path / "fewer.npz"
    assert run("evaluate", "panoptic", "--gt", fewer, "--pred", fewer, "--save-counts", saved)[0] == 0
    assert "expected the same images in A and B, B lacks 7" in error_line(run("compare", counts[0], saved))
    other = write_panoptic(tmp_path, "other", dict.fromkeys(range(8), (ROWS, WRONG)))
    line = error_line(run("compare", counts[0], good, "--gt", other))
    assert "expected the same ground truth segments in A and B, they differ" in line
    line = error_line(run("compare", counts[0], good, "--gt", ground_truth, "--mode", "corrected"))
    assert "expected one mode, got reference and corrected" in line
    line = error_line(run("compare", counts[0], good, "--gt", ground_truth, "--trust-areas"))
    assert "only one of A and B trusts the ground truth's areas" in line
    content = json.loads(ground_truth.read_text())
    content["categories"].append({"id": 99, "name": "sea", "isthing": 0})
    (tmp_path / "more.json").write_text(json.dumps(content))
    (tmp_path / "more").symlink_to(tmp_path / "ground_truth")
    assert "expected the same categories" in error_line(run("compare", counts[0], good, "--gt", tmp_path / "more.json"))


def test_average_precision_of_results_and_of_counts(run, tmp_path, counts):
    """12 cars in 12 images: A has a third of them."""
    images = [{"id": i, "file_name": f"{i}.png", "height": 20, "width": 20} for i in range(12)]
    mask = np.zeros((20, 20), dtype=bool)
    mask[2:12, 2:12] = True
    car = {"category_id": 3, "bbox": [2, 2, 10, 10], "segmentation": mask_to_rle(mask)}
    annotations = [{**car, "id": i + 1, "image_id": i, "area": 100, "iscrowd": 0} for i in range(12)]
    ground_truth, a, b, npz, out = (tmp_path / n for n in ("gt.json", "a.json", "b.json", "b.npz", "out.json"))
    content = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "car"}]}
    ground_truth.write_text(json.dumps(content))
    results = [{**car, "image_id": i, "score": 0.5 + i / 100} for i in range(12)]
    a.write_text(json.dumps(results[::3]))
    b.write_text(json.dumps(results))
    assert run("evaluate", "instances", "--gt", ground_truth, "--pred", b, "--save-counts", npz)[0] == 0
    code, printed, error = run("compare", a, npz, "--gt", ground_truth, "--output", out, "--samples", "200")
    assert (code, error) == (0, "")
    ap = json.loads(out.read_text())["segm"]["AP"]
    # Recall is a third at precision 1: 34 of COCO's 101 recalls, 0.00 to 0.33.
    assert (ap["A"], ap["B"]) == (pytest.approx(100 * 34 / 101), pytest.approx(100))
    assert f"segm: B is better than A by {100 * 67 / 101:.2f} points of AP" in printed
    assert "bbox: B - A, 95% interval" in printed
    assert "expected A and B of one kind" in error_line(run("compare", npz, counts[0]))
    boxes = tmp_path / "boxes.npz"
    wanted = ("evaluate", "instances", "--gt", ground_truth, "--pred", b, "--save-counts", boxes, "--iou-types")
    assert run(*wanted, "boundary")[0] == 0
    assert "expected one kind of IoU in both" in error_line(run("compare", npz, boxes))


def test_counts_of_another_metric_or_of_a_shard_are_rejected(run, files, counts, tmp_path):
    ground_truth, bad, _good = files
    part = tmp_path / "part.npz"
    assert (
        run("evaluate", "panoptic", "--gt", ground_truth, "--pred", bad, "--shard", "1/2", "--save-counts", part)[0]
        == 0
    )
    assert "got shard 1/2; join all shards" in error_line(run("compare", part, part))
    _, gt, pred = cityscapes_files(tmp_path / "cityscapes")
    other = tmp_path / "cityscapes.npz"
    arguments = ("--protocol", "cityscapes", "--gt", gt, "--pred", pred, "--save-counts", other)
    assert run("evaluate", "instances", *arguments)[0] == 0
    line = error_line(run("compare", counts[0], other))
    assert "expected counts of panoptic quality, average precision or semantic IoU, got counts of cityscapes" in line
    assert "absent.npz: expected saved counts, found no file" in error_line(run("compare", counts[0], "absent.npz"))
    assert f"{tmp_path}: expected a file to write" in error_line(run("compare", *counts, "--output", tmp_path))


@pytest.fixture
def label_maps(tmp_path):
    """Label PNGs of 12 images and two predictions: A has the sky wrong in every third image, B has all right."""
    labels = np.kron([[0, 1]], np.ones((4, 4), np.uint8)).astype(np.uint8)
    for number in range(12):
        for folder, has_sky in (("gt", True), ("a", number % 3 > 0), ("b", True)):
            png.write_labels(tmp_path / f"{folder}/{number}.png", labels * has_sky)
    return [tmp_path / folder for folder in ("gt", "a", "b")]


def test_semantic_iou_of_label_maps_of_masks_and_of_counts(run, label_maps, tmp_path):
    """Sky: 8 of 12 images right. Road is predicted in the other third of the sky's pixels: 12 / 16."""
    ground_truth, a, b = label_maps
    npz, out = tmp_path / "b.npz", tmp_path / "out.json"
    classes = ("--classes", "road", "[blue]sky")
    saved = run("evaluate", "semantic", "--gt", ground_truth, "--pred", b, "--save-counts", npz, *classes)
    assert saved[0] == 0
    arguments = ("--gt", ground_truth, "--samples", 200, *classes)
    code, printed, error = run("compare", a, npz, *arguments, "--output", out)
    assert (code, error) == (0, "")
    compared = json.loads(out.read_text())["sem_seg"]
    assert (compared["mIoU"]["A"], compared["mIoU"]["B"]) == (pytest.approx(100 * (12 / 16 + 8 / 12) / 2), 100)
    assert compared["per_class"]["[blue]sky"]["IoU"]["A"] == pytest.approx(100 * 8 / 12)
    interval = f"{compared['mIoU']['low']:+.2f} to {compared['mIoU']['high']:+.2f}"
    assert printed.splitlines()[-1] == f"B is better than A by 29.17 points of mIoU (95% interval {interval})."
    assert "│ [blue]sky │ 66.7 │ 100.0 │" in printed
    masks = tmp_path / "sem_seg_predictions.json"
    entries = [
        {"file_name": f"{number}.jpg", "category_id": label, "segmentation": mask_to_rle(labels == label)}
        for number, labels in ((number, png.read_labels(a / f"{number}.png")) for number in range(12))
        for label in range(2)
        if (labels == label).any()
    ]
    masks.write_text(json.dumps(entries))
    assert (
        run("compare", masks, b, *arguments)[1] == run("compare", a, npz, *arguments)[1] == printed[len(f"{out}\n") :]
    )


def test_joined_shards_are_compared_as_one_pass(run, label_maps, tmp_path):
    ground_truth, *predictions = label_maps
    joined, arguments = [], ("--gt", ground_truth, "--classes", "road", "sky")
    for folder in predictions:
        parts = [tmp_path / f"{folder.name}{index}.npz" for index in (1, 2)]
        for index, part in enumerate(parts, 1):
            wanted = ("--pred", folder, "--shard", f"{index}/2", "--save-counts", part)
            assert run("evaluate", "semantic", *arguments, *wanted)[0] == 0
        joined.append(tmp_path / f"{folder.name}.npz")
        assert run("evaluate", "merge", *reversed(parts), "--save-counts", joined[-1])[0] == 0
    assert run("compare", *joined) == run("compare", *predictions, *arguments)


def test_folders_of_evaluations_and_of_runs(run, counts, label_maps, tmp_path):
    """All kinds that both have are compared; a run of one dataset may be named itself."""
    evaluations = [tmp_path / name / "inference/val" for name in ("run_a", "run_b")]
    gt, *predictions = label_maps
    for folder, panoptic, labels in zip(evaluations, counts, predictions, strict=True):
        counts_file.save_evaluation(folder, "panoptic", counts_file.load(panoptic).metric)
        counts_file.save_evaluation(folder, "semantic", score_semantic(gt, labels, per_image=True))
    counts_file.save_evaluation(
        evaluations[1], "instances", AveragePrecision(counts_file.load(counts[0]).metric.categories)
    )
    out = tmp_path / "out.json"
    code, printed, error = run("compare", *evaluations, "--output", out)
    assert (code, error) == (0, "")
    assert [*json.loads(out.read_text())] == ["panoptic_seg", "sem_seg"]
    assert "B is better than A by 44.44 points of PQ" in printed
    assert "B is better than A by 29.17 points of mIoU" in printed
    assert printed.splitlines()[-1].replace("\n", "").endswith("run_b/inference/val has it: instances")
    assert run("compare", tmp_path / "run_a", tmp_path / "run_b")[1].splitlines()[:-1] == printed.splitlines()[1:-1]
    alone = run("compare", evaluations[0], counts[1])
    assert alone[1].splitlines()[-1].endswith("run_a/inference/val has it: semantic")
    counts_file.save_evaluation(tmp_path / "run_b/inference/test", "semantic", SemanticIoU(["sky"]))
    line = error_line(run("compare", tmp_path / "run_a", tmp_path / "run_b"))
    assert "expected the counts of one dataset, got those of 'test', 'val'; name one of its folders" in line
    line = error_line(run("compare", tmp_path / "run_b/inference/test", counts[0]))
    assert "expected A and B of one kind, got semantic of A, panoptic of B" in line


def test_classes_of_label_maps_must_be_the_same(run, label_maps):
    ground_truth, a, b = label_maps
    png.write_labels(b / "0.png", np.full((4, 8), 7))
    line = error_line(run("compare", a, b, "--gt", ground_truth))
    assert "expected the same classes in A and B, only one of them has '7'" in line
    assert "score both with the same --classes or --categories" in line
    assert "expected the folder of an evaluation" in error_line(run("compare", a, b))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--level", "1"),
        ("--level", "0"),
        ("--level", "nan"),
        ("--level", "x"),
        ("--samples", "0"),
        ("--workers", "-1"),
        ("--seed", "-1"),
        ("--seed", "1.5"),
    ],
)
def test_wrong_usage(run, option, value):
    code, _, error = run("compare", "a", "b", f"{option}={value}")
    assert code == 2
    assert f"argument {option}: expected a" in error
