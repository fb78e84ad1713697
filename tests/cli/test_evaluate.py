"""`segkit evaluate` on small files: results, joined shards, exit codes, and errors for bad input."""

import json
import os
import pickle
import subprocess
import sys
from itertools import permutations

import numpy as np
import pytest
from PIL import Image

from segkit.cli.main import main
from segkit.formats import png
from segkit.metrics import SemanticIoU
from segkit.scoring.cityscapes_instances import score_cityscapes_instances
from segkit.scoring.instances import score_instances
from segkit.scoring.panoptic import score_panoptic
from tests.helpers.prediction_files import (
    ARGUMENTS,
    CAR,
    KINDS,
    SKY,
    WRITE_FILES,
    error_line,
    instances_files,
    panoptic_files,
    two_images,
    write_panoptic,
)


def write_masks(folder, mask):
    folder.mkdir()
    png.write(folder / "a.png", np.array(mask, np.uint8))
    return folder


@pytest.fixture
def run(capsys, monkeypatch):
    """Run `segkit evaluate` with these arguments: (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "120")

    def evaluate(*arguments):
        code = main(["evaluate", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return evaluate


def test_metrics_equal_those_computed_by_hand(run, tmp_path):
    ground_truth, predictions = two_images(tmp_path)
    out = tmp_path / "deep/folder/metrics.json"
    code, printed, error = run("panoptic", "--gt", ground_truth, "--pred", predictions, "--per-class", "--output", out)
    assert (code, error) == (0, "")
    results = json.loads(out.read_text())
    assert results["panoptic_seg"]["PQ"] == pytest.approx(100 * (2 / 3 + 0 + 1) / 3)
    car = {"PQ": pytest.approx(200 / 3), "SQ": 100, "RQ": pytest.approx(200 / 3), "tp": 1, "fp": 0, "fn": 1}
    assert results["panoptic_seg"]["per_class"]["1"] == car
    assert results["panoptic_seg"]["PQ_st"] == 100
    assert [*results["analysis"]] == ["intervals", "error_budget", "confusion", "worst_images", "per_image"]
    assert "│ panoptic_seg │ 55.6 │" in printed
    assert "│ [red]car │" in printed, "names are text, no markup"
    assert "[red]car → dog" in printed
    assert str(out) in printed


@pytest.mark.parametrize("kind", KINDS)
def test_the_json_holds_the_metrics(run, tmp_path, kind):
    _, gt, pred = WRITE_FILES[kind](tmp_path)
    out = tmp_path / "metrics.json"
    assert run(*ARGUMENTS[kind], "--gt", gt, "--pred", pred, "--output", out, "--workers", 2, "--per-class")[0] == 0
    results = json.loads(out.read_text())
    results.pop("notes", None)
    if kind == "panoptic":
        scored = score_panoptic(gt, pred, boundary=True, dagger=True)
        assert results.pop("analysis")["intervals"]["images"] == 6
        expected = {"panoptic_seg": scored.metric.compute(scored.image_order)}
    elif kind == "instances":
        expected = score_instances(gt, pred, iou_types=["bbox"]).compute()
    elif kind == "cityscapes":
        expected = {"cityscapes_segm": score_cityscapes_instances(gt, pred).compute()}
    else:
        metric = SemanticIoU(("road", "sky", "[blue]car"), boundary=True)
        for number in range(5):
            metric.update(*(np.array(Image.open(folder / f"{number}.png")) for folder in (gt, pred)))
        expected = {"sem_seg": metric.compute()}
    assert results == expected


@pytest.mark.parametrize("kind", KINDS)
def test_merged_shards_give_the_same_bytes_as_one_run(run, tmp_path, kind):
    """In every order of the files. Some shards have no image."""
    _, gt, pred = WRITE_FILES[kind](tmp_path)
    files = [*ARGUMENTS[kind], "--gt", gt, "--pred", pred]
    whole = tmp_path / "whole.json"
    assert run(*files, "--output", whole)[0] == 0
    for shards in (3, 7):
        parts = [tmp_path / f"{i}_of_{shards}" for i in range(1, shards + 1)]
        for i, part in enumerate(parts, 1):
            code, out, error = run(*files, "--shard", f"{i}/{shards}", "--save-counts", part, "--workers", i % 2 + 1)
            assert (code, out, error) == (0, f"{part}\n", "")
        for ordered in [*permutations(parts)][:: 1 if shards == 3 else 1700]:
            joined, again = tmp_path / "joined.json", tmp_path / "joined.npz"
            assert run("merge", *ordered, "--output", joined, "--save-counts", again)[0] == 0
            assert joined.read_bytes() == whole.read_bytes()
            assert run("merge", again, "--output", joined)[0] == 0
            assert joined.read_bytes() == whole.read_bytes()


def shard(run, tmp_path, name, *arguments, of=(1, 2), kind="semantic"):
    root = tmp_path / kind
    _, gt, pred = (kind, root / "gt", root / "pred") if root.exists() else WRITE_FILES[kind](root)
    files = ["--gt", gt, "--pred", pred, "--shard", "{}/{}".format(*of), "--save-counts", tmp_path / name]
    assert run(*ARGUMENTS[kind], *files, *arguments)[0] == 0
    return tmp_path / name


def test_inconsistent_shards_are_rejected(run, tmp_path):
    first, second = (shard(run, tmp_path, f"{i}.npz", of=(i, 2)) for i in (1, 2))
    assert "1 shards are missing: 2/2; evaluate them, or name their files" in error_line(run("merge", first))
    assert "name each file once" in error_line(run("merge", first, first))
    copy = tmp_path / "copy.npz"
    copy.write_bytes(first.read_bytes())
    line = error_line(run("merge", first, copy))
    assert line.endswith(f"expected each shard once, got 1/2 here and in {first}\n")
    third = shard(run, tmp_path, "third.npz", of=(2, 3))
    assert f"expected one of 2 shards as in {first}, got one of 3" in error_line(run("merge", first, third))
    other = shard(run, tmp_path, "other.npz", "--ignore-label", "2", of=(2, 2))
    assert "got one of other files or options" in error_line(run("merge", first, other))
    cities = shard(run, tmp_path, "cities.npz", of=(2, 2), kind="cityscapes")
    assert f"expected counts of kind semantic as in {first}, got cityscapes" in error_line(run("merge", first, cities))
    (tmp_path / "semantic/gt/9.png").write_bytes((tmp_path / "semantic/gt/0.png").read_bytes())
    (tmp_path / "semantic/pred/9.png").write_bytes((tmp_path / "semantic/pred/0.png").read_bytes())
    more = shard(run, tmp_path, "more.npz", of=(2, 2))
    assert "got one of other files or options" in error_line(run("merge", first, more))
    assert error_line(run("merge", first, tmp_path)).count(str(tmp_path)) == 1
    assert run("merge", second, first)[0] == 0


def test_shards_of_another_prediction_are_rejected(run, tmp_path):
    """A changed JSON of the same images is rejected; an unchanged copy at another path is accepted."""
    ground_truth, predictions = two_images(tmp_path / "a")
    _, predictions_b = two_images(tmp_path / "b")
    parts = [tmp_path / f"{i}.npz" for i in range(3)]
    options = ("panoptic", "--gt", ground_truth)
    assert run(*options, "--pred", predictions, "--shard", "1/2", "--save-counts", parts[0])[0] == 0
    assert run(*options, "--pred", predictions_b, "--shard", "2/2", "--save-counts", parts[1])[0] == 0
    assert run("merge", *parts[:2])[0] == 0
    predictions_b.write_text(predictions_b.read_text().replace("17", "1", 1))
    assert run(*options, "--pred", predictions_b, "--shard", "2/2", "--save-counts", parts[2])[0] == 0
    assert "got one of other files or options" in error_line(run("merge", parts[0], parts[2]))


def test_a_shard_is_not_accepted_as_a_result(run, tmp_path):
    ground_truth, predictions = two_images(tmp_path)
    files = ("panoptic", "--gt", ground_truth, "--pred", predictions, "--shard", "1/2")
    assert "add --save-counts FILE" in error_line(run(*files))
    outputs = ("--save-counts", tmp_path / "c", "--output", tmp_path / "o")
    assert "give --output to `segkit evaluate merge`" in error_line(run(*files, *outputs))
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "a/b", "-1/2", "²/2", "1/0"])
def test_invalid_shard_options_are_rejected(run, text):
    code, _, error = run("panoptic", "--gt", "x", "--pred", "y", f"--shard={text}")
    assert code == 2
    assert "expected I/N with 1 <= I <= N, as in 1/4" in error


@pytest.mark.parametrize("option", ["--workers", "--problems", "--worst"])
@pytest.mark.parametrize("value", ["0", "-1", "two", "²", "1.5", ""])
def test_number_options_must_be_positive_integers(run, option, value):
    code, _, error = run("panoptic", "--gt", "x", "--pred", "y", f"{option}={value}")
    assert code == 2
    assert f"expected a whole number from 1, got {value!r}" in error


def test_wrong_usage(run):
    assert run()[0] == 2
    assert run("depth")[0] == 2
    assert run("panoptic", "--gt", "x")[0] == 2
    assert run("panoptic", "--gt", "x", "--pred", "y", "--trust-areas", "--recount-areas")[0] == 2
    assert "--iou-types and --gt-folder belong to --protocol coco" in error_line(
        run("instances", "--gt", "x", "--pred", "y", "--protocol", "cityscapes", "--iou-types", "bbox")
    )


def test_panopticapis_file_names_are_accepted(run, tmp_path):
    ground_truth, predictions = two_images(tmp_path)
    (tmp_path / "ground_truth").rename(tmp_path / "x")
    (tmp_path / "predictions").rename(tmp_path / "y")
    names = ("--gt_json_file", ground_truth, "--pred_json_file", predictions, "--gt_folder", tmp_path / "x")
    assert "predictions: no such folder of PNGs" in error_line(run("panoptic", *names))
    assert run("panoptic", *names, "--pred_folder", tmp_path / "y")[0] == 0


def test_all_problems_are_reported_up_to_a_limit(run, tmp_path):
    ground_truth, predictions = two_images(tmp_path)
    pngs = [tmp_path / f"predictions/{number}.png" for number in range(2)]
    pngs[0].write_bytes(pngs[0].read_bytes()[:50])
    pngs[1].unlink()
    line = error_line(run("panoptic", "--gt", ground_truth, "--pred", predictions))
    assert line.startswith("segkit evaluate: 2 problems:\n- ")
    assert all(str(png) in line for png in pngs)
    line = error_line(run("panoptic", "--gt", ground_truth, "--pred", predictions, "--problems", "1", "--workers", "2"))
    assert "1 problems found, the search stopped here" in line
    assert str(pngs[1]) not in line


def test_wrong_areas_follow_the_areas_option(run, tmp_path):
    """The JSON declares 0 pixels. The car's union is 4 + 0 - 4 = 0, so panopticapi's IoU is infinite."""
    rows, category_ids = [[1, 1, 2, 2], [1, 1, 2, 2]], {1: CAR, 2: SKY}
    ground_truth = write_panoptic(tmp_path, "ground_truth", {1: (rows, category_ids), 2: (rows, category_ids)}, areas=0)
    predictions = write_panoptic(tmp_path, "predictions", {1: (rows, category_ids), 2: (rows, category_ids)})
    files = ("panoptic", "--gt", ground_truth, "--pred", predictions, "--output", tmp_path / "o.json")
    line = error_line(run(*files))
    assert "image 1, segment 1: the declared area is 0, the map has 4 pixels" in line
    assert "--recount-areas" in line
    code, out, error = run(*files, "--recount-areas")
    assert (code, error) == (0, "")
    assert json.loads((tmp_path / "o.json").read_text())["panoptic_seg"]["PQ"] == 100
    code, out, error = run(*files, "--trust-areas")
    assert (code, error) == (0, "")
    assert json.loads((tmp_path / "o.json").read_text())["panoptic_seg"]["PQ"] is None, "JSON has no infinity"
    assert "2 images have (1, 2) areas that their map contradicts." in " ".join(out.split())


def test_the_report_says_when_the_modes_differ(run, tmp_path):
    """Two crowds of a category: the reference uses only the last, and the prediction on the first is false."""
    rows = [[1, 1, 1, 1, 2, 2, 3, 3]]
    ground_truth = write_panoptic(tmp_path, "ground_truth", {"[red]x": (rows, {1: CAR, 2: CAR, 3: SKY})})
    content = json.loads(ground_truth.read_text())
    for info in content["annotations"][0]["segments_info"][:2]:
        info["iscrowd"] = 1
    ground_truth.write_text(json.dumps(content))
    predictions = write_panoptic(tmp_path, "predictions", {"[red]x": (rows, {1: CAR, 2: CAR, 3: SKY})})
    code, out, _ = run("panoptic", "--gt", ground_truth, "--pred", predictions)
    assert code == 0
    expected = (
        "By the corrected rules, PQ is 100.0 instead of 50.0: 1 image has ('[red]x') several crowds of one category."
    )
    assert expected in " ".join(out.split())


def test_empty_datasets_give_no_metrics(run, tmp_path):
    ground_truth = write_panoptic(tmp_path, "ground_truth", {})
    predictions = write_panoptic(tmp_path, "predictions", {})
    counts, out = tmp_path / "c.npz", tmp_path / "o.json"
    files = ("panoptic", "--gt", ground_truth, "--pred", predictions)
    code, printed, error = run(*files, "--per-class", "--output", out, "--save-counts", counts)
    assert (code, error) == (0, "")
    assert "No intervals: images with segments: 0" in printed
    assert "│ panoptic_seg │  – │" in printed
    assert json.loads(out.read_text())["panoptic_seg"]["PQ"] is None
    whole = out.read_bytes()
    assert run("merge", counts, "--output", out)[0] == 0
    assert out.read_bytes() == whole


@pytest.mark.parametrize("content", ["[]", "{}", '{"annotations": []}', "", "[1", "null", '{"images": 3}'])
def test_json_files_of_another_kind_are_rejected(run, tmp_path, content):
    ground_truth, predictions = two_images(tmp_path)
    other = tmp_path / "other.json"
    other.write_text(content)
    (tmp_path / "other").mkdir()
    for gt, pred in ((other, predictions), (ground_truth, other)):
        assert str(other) in error_line(run("panoptic", "--gt", gt, "--pred", pred))
    if content != "[]":
        assert str(other) in error_line(run("instances", "--gt", ground_truth, "--pred", other))
    assert str(other) in error_line(run("instances", "--gt", other, "--pred", instances_files(tmp_path / "i")[2]))


def test_non_numeric_scores_are_rejected(run, tmp_path):
    _, ground_truth, results = instances_files(tmp_path)
    results.write_text(results.read_text().replace("0.5", "NaN"))
    line = error_line(run(*ARGUMENTS["instances"], "--gt", ground_truth, "--pred", results))
    assert "image" in line
    assert str(results) in line


def test_an_empty_list_of_results_scores_0(run, tmp_path):
    _, ground_truth, results = instances_files(tmp_path)
    results.write_text("[]")
    assert run(*ARGUMENTS["instances"], "--gt", ground_truth, "--pred", results, "--output", tmp_path / "o")[0] == 0
    assert json.loads((tmp_path / "o").read_text())["bbox"]["AP"] == 0


@pytest.mark.parametrize("option", ["--output", "--save-counts"])
def test_unwritable_output_paths_are_reported_before_evaluation(run, tmp_path, option):
    (tmp_path / "file").write_text("")
    for path, problem in ((tmp_path, "this is a folder"), (tmp_path / "file/x.json", "cannot be written")):
        line = error_line(run("panoptic", "--gt", "absent.json", "--pred", "absent.json", option, path))
        assert line.startswith(f"segkit evaluate: {path}: ")
        assert problem in line
    assert [*tmp_path.iterdir()] == [tmp_path / "file"]


def test_a_full_disk_leaves_no_partial_file(run, tmp_path, monkeypatch):
    ground_truth, predictions = two_images(tmp_path)

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    counts = tmp_path / "out/counts.npz"
    line = error_line(run("panoptic", "--gt", ground_truth, "--pred", predictions, "--save-counts", counts))
    assert f"{counts}: cannot be written: No space left on device" in line
    assert not counts.parent.exists()


def test_a_pickle_is_never_read(run, tmp_path):
    class Boom:
        def __reduce__(self):
            return (open, (str(tmp_path / "harmed"), "w"))

    plain, inside = tmp_path / "a.npz", tmp_path / "b.npz"
    plain.write_bytes(pickle.dumps(Boom()))
    np.savez(inside, header=np.array([Boom()], dtype=object))
    for path in (plain, inside):
        assert f"{path}: expected saved counts, got something else" in error_line(run("merge", path))
    assert not (tmp_path / "harmed").exists()


def python(code, *arguments, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, **options)


BLOCKED = """
import sys
for name in ("torch", "torchvision", "detectron2", "fvcore", "iopath", "yacs"):
    sys.modules[name] = None
from segkit.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_no_torch_and_no_detectron2_are_needed(tmp_path):
    """Also, nothing is printed on a stderr that is not a terminal."""
    for kind in KINDS:
        _, gt, pred = WRITE_FILES[kind](tmp_path / kind)
        counts = tmp_path / f"{kind}.npz"
        files = ["--gt", gt, "--pred", pred, "--workers", 2, "--save-counts", counts]
        ran = python(BLOCKED, "evaluate", *ARGUMENTS[kind], *files)
        assert (ran.returncode, ran.stderr) == (0, "")
    ran = python(BLOCKED, "evaluate", "merge", tmp_path / "panoptic.npz")
    assert (ran.returncode, ran.stderr) == (0, "")
    ran = python(BLOCKED, "compare", tmp_path / "panoptic.npz", tmp_path / "panoptic.npz")
    assert (ran.returncode, ran.stderr) == (0, "")


NO_CHILD_LEFT = """
import sys, multiprocessing
from segkit.cli.main import main
code = main(sys.argv[1:])
sys.exit(code if not multiprocessing.active_children() else 99)
"""


def test_no_worker_is_left_behind(tmp_path):
    ground_truth, predictions = panoptic_files(tmp_path)[1:]
    files = ("evaluate", "panoptic", "--gt", ground_truth, "--pred", predictions, "--workers", 2)
    assert python(NO_CHILD_LEFT, *files).returncode == 0
    (tmp_path / "predictions/3.png").unlink()
    ran = python(NO_CHILD_LEFT, *files)
    assert ran.returncode == 1
    assert ran.stderr.count("\n") == 1


def test_results_are_written_even_if_stdout_is_closed(tmp_path):
    ground_truth, predictions = two_images(tmp_path)
    out = tmp_path / "o.json"
    command = (
        f"'{sys.executable}' -m segkit evaluate panoptic --gt '{ground_truth}' --pred '{predictions}' --output '{out}'"
    )
    ran = subprocess.run(["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True)
    assert ran.stdout in ("141\n", "0\n")
    assert ran.stderr == ""
    assert json.loads(out.read_text())["panoptic_seg"]["PQ"] == pytest.approx(500 / 9)


@pytest.mark.parametrize("columns", ["40", "80"])
def test_narrow_terminals(run, tmp_path, monkeypatch, columns):
    ground_truth, predictions = two_images(tmp_path)
    monkeypatch.setenv("COLUMNS", columns)
    code, out, _ = run("panoptic", "--gt", ground_truth, "--pred", predictions, "--per-class")
    assert code == 0
    assert max(map(len, out.splitlines())) <= int(columns)


def test_a_bar_is_drawn_on_a_terminal(monkeypatch, tmp_path, capsys):
    ground_truth, predictions = panoptic_files(tmp_path)[1:]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert main(["evaluate", "panoptic", "--gt", str(ground_truth), "--pred", str(predictions)]) == 0
    captured = capsys.readouterr()
    assert "/6" in captured.err
    assert "/6" not in captured.out


def test_labels_of_masks_can_be_named(run, tmp_path):
    """Masks of 0 and 255: with names in order 255 is void, which is said; with names by label it is a class."""
    gt, pred = write_masks(tmp_path / "gt", [[0, 255]]), write_masks(tmp_path / "pred", [[0, 0]])
    out = tmp_path / "metrics.json"
    _, printed, _ = run("semantic", "--gt", gt, "--pred", pred, "--classes", "background", "lesion", "--output", out)
    assert "│ 100.0 │" in printed
    notes = json.loads(out.read_text())["notes"]
    assert notes[0] == "1 of 2 classes have no ground truth that counts: 'lesion'"
    assert notes[1].startswith("pixels of 255 are void: if 255 is a class, name the labels")
    assert all(note in " ".join(printed.split()) for note in notes)
    _, printed, _ = run("semantic", "--gt", gt, "--pred", pred, "--output", out)
    assert json.loads(out.read_text())["sem_seg"]["mIoU"] is None
    assert "sem_seg mIoU is undefined: there is only the class '0', which every prediction has right" in printed
    _, printed, _ = run("semantic", "--gt", gt, "--pred", pred, "--classes", "0=background", "255=lesion")
    assert "│ sem_seg │ 25.0 │" in printed
    assert "no ground truth" not in printed
    code, _, error = run("semantic", "--gt", gt, "--pred", pred, "--classes", "0=background", "00=lesion")
    assert code != 0
    assert "expected --classes to name different labels in 0..65535" in error
