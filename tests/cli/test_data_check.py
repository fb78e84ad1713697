"""`segkit data check`: what it prints, writes and returns."""

from __future__ import annotations

import argparse
import json

import pytest
from PIL import Image

from segkit.cli import data_check
from segkit.cli.main import main
from segkit.curation.issues import RULES
from segkit.utils.errors import DatasetError
from tests.helpers.damaged_datasets import Broken, instances, noise, panoptic

MAX_SHOWN = data_check.MAX_SHOWN


@pytest.fixture
def run(capsys):
    """Run `segkit data check` with these arguments: (exit code, stdout, stderr)."""

    def check(*arguments):
        parser = argparse.ArgumentParser()
        data_check.add_arguments(parser)
        code = data_check.run(parser.parse_args([*map(str, arguments)]))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return check


@pytest.fixture
def data(tmp_path):
    return panoptic(tmp_path / "data")


def dataset_arguments(data: Broken) -> tuple:
    return "--format", "coco-panoptic", "--json", data.json_path, "--masks", data.masks, "--images", data.images


def damage_areas(data: Broken) -> None:
    content = data.load()
    for annotation in content["annotations"]:
        annotation["segments_info"][0]["area"] += 1
    data.store(content)


def test_a_dataset_without_issues(run, data, tmp_path):
    code, printed, error = run(*dataset_arguments(data), "--output", tmp_path / "deep/issues.json")
    assert (code, error) == (0, "")
    assert printed.splitlines() == ["no issues", str(tmp_path / "deep/issues.json")]
    assert json.loads((tmp_path / "deep/issues.json").read_text()) == []


def test_all_issues_are_in_the_file_and_some_on_the_screen(run, data, tmp_path):
    damage_areas(data)
    (data.images / "more.jpg").touch()
    code, printed, _ = run(*dataset_arguments(data), "--output", tmp_path / "issues.json", "--workers", 2)
    assert code == 1
    issues = json.loads((tmp_path / "issues.json").read_text())
    assert [issue["code"] for issue in issues] == ["area-wrong"] * 6 + ["image-orphan"]
    assert {*issues[0]} == {"code", "severity", "place", "message", "remedy"}
    assert (issues[0]["severity"], issues[0]["place"]) == ("error", f"{data.json_path}, image 0, segment 7")
    lines = printed.splitlines()
    assert lines[0].startswith("error area-wrong (6): an area differs from the mask; recount it")
    assert lines[1] == f"  {data.json_path}, image 0, segment 7: expected 9 pixels as in the PNG, got 10"
    assert lines[1 + MAX_SHOWN] == "  ... and 1 more, see --output"
    assert lines[2 + MAX_SHOWN].startswith("warning image-orphan (1): ")
    assert "6 errors, 1 warning" in lines


def test_a_warning_does_not_fail(run, data):
    (data.images / "more.jpg").touch()
    code, printed, _ = run(*dataset_arguments(data))
    assert code == 0
    assert printed.endswith("1 warning\n")


def test_a_repaired_copy(run, data, tmp_path):
    """The areas are repaired, the missing image is not. The exit code 1 refers to the original dataset."""
    damage_areas(data)
    data.image_path(3).unlink()
    code, printed, _ = run(*dataset_arguments(data), "--fix", tmp_path / "copy")
    assert code == 1
    first, second = printed.split(f"{tmp_path / 'copy'}: a repaired copy. To review:\n")
    assert first.endswith("7 errors\n")
    assert second.endswith("1 error\n")
    copy = Broken(tmp_path / "copy/panoptic.json", tmp_path / "copy/masks", data.images)
    assert second == "  nothing\n" + run(*dataset_arguments(copy))[1]


def test_instances(run, tmp_path):
    data = instances(tmp_path / "data")
    where = "--format", "coco-instances", "--json", data.json_path, "--images", data.images
    assert run(*where)[0] == 0
    content = data.load()
    content["annotations"][0]["bbox"] = [0, 0, 1, 1]
    data.store(content)
    code, printed, _ = run(*where, "--fix", tmp_path / "copy")
    assert code == 1
    assert printed.splitlines()[-1] == "no issues"
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["instances.json"]


def test_another_split(run, data, tmp_path):
    other = panoptic(tmp_path / "other")
    code, printed, _ = run(*dataset_arguments(data), "--against", other.images)
    assert code == 1
    assert printed.endswith("6 errors\n")
    assert "error image-shared (6)" in printed


def test_any_other_format(run, data, tmp_path, monkeypatch):
    """Two-channel PNGs, as in panopticapi: the ids of the sample have no category, so each image is reported."""
    places = "--format", "two-channel-png", "--masks", data.masks, "--images", data.images
    code, printed, error = run(*places, "--categories", data.json_path)
    assert (code, error) == (1, "")
    assert "error annotation-unreadable (6)" in printed
    data.png(0).write_bytes(b"")
    code, printed, _ = run(*places, "--categories", data.json_path)
    assert code == 1
    assert "error png-unreadable (1)" in printed  # it does not hide the other issues
    assert "error annotation-unreadable (5)" in printed
    code, printed, _ = run(*places, "--categories", tmp_path / "none.json")
    assert (code, "error dataset-unreadable (1)" in printed) == (1, True)


def test_a_dataset_whose_files_are_all_damaged_is_not_called_empty(run, tmp_path):
    (tmp_path / "a.json").write_text("{")
    code, out, _ = run("--format", "labelme", "--root", tmp_path)
    assert code == 1
    assert "json-unreadable (1)" in out
    assert "dataset-empty" not in out


def test_the_rules_are_listed(capsys):
    assert main(["data", "rules"]) == 0
    assert [line.split(" ")[0] for line in capsys.readouterr().out.splitlines()] == [*RULES]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "nothing"), "unknown format 'nothing'"),
        (("--format", "coco-panoptic", "--json", "x"), "takes --json --masks --images"),
        (("--format", "coco-instances", "--json", "x", "--images", "y", "--masks", "z"), "takes --json --images"),
        (("--format", "coco-instances", "--json", "x", "--images", "y", "--set", "z"), "expected option=value"),
        (("--format", "coco-instances", "--json", "x", "--images", "y", "--output", "x"), "--output is --json"),
        (
            ("--format", "coco-instances", "--json", "x", "--images", "y", "--set", "json=3"),
            "--json to be a path, got 3",
        ),
        (("--format", "coco-instances", "--json", "x", "--set", "images=null"), "--images to be a path, got None"),
        (("--format", "coco-instances", "--json", "x", "--set", "images=[1]"), "--images to be a path, got [1]"),
        (
            ("--format", "coco-instances", "--json", "x", "--set", 'images="a\\0"'),
            "--images to be a path, got 'a\\x00'",
        ),
        (("--format", "coco-instances", "--json", "x", "--images", "y", "--split", "val"), "leave out the split"),
        (("--format", "coco-instances", "--json", "x", "--images", ""), "--images is empty"),
        (("--format", "coco-instances", "--json", "x", "--images", "y", "--against", ""), "--against is empty"),
        (("--format", "coco-instances", "--json", "x", "--images", "y", "--against", "no"), "--against: no: expected"),
        (("--format", "coco-instances", "--json", "x", "--images", "y", "--against", "./x"), "--against is --json"),
        (("--format", "voc", "--root", "x", "--split", "val", "--against", "val"), "--against is --split"),
        (("--format", "two-channel-png", "--masks", "x"), "needs ['masks', 'images', 'categories']"),
        (("--format", "two-channel-png", "--masks", "x", "--fix", "y"), "--fix repairs coco-panoptic and"),
    ],
)
def test_wrong_usage(run, arguments, message):
    code, printed, error = run(*arguments)
    assert (code, printed) == (2, "")
    assert message in error
    assert error.count("\n") == 1


def test_a_repair_never_writes_into_protected_folders(run, data, tmp_path):
    assert run(*dataset_arguments(data), "--fix", data.images / "copy")[0] == 2
    assert run(*dataset_arguments(data), "--fix", data.masks)[0] == 2
    assert run(*dataset_arguments(data), "--fix", tmp_path / "copy", "--output", tmp_path / "copy/issues.json")[0] == 2
    assert not (tmp_path / "copy").exists()


def test_dataset_files_are_not_overwritten_by_the_issues_file(run, data, tmp_path):
    """Other files are not overwritten either, except an earlier issues file and an empty file outside the dataset."""
    empty = data.masks / "empty.png"
    empty.touch()
    other = tmp_path / "notes.txt"
    other.write_text("[1]")
    link = tmp_path / "link"
    link.symlink_to(data.json_path)
    protected = [data.json_path, data.png(), data.image_path(), empty, other, link, tmp_path / "link2"]
    protected[-1].symlink_to("nowhere")
    before = [path.read_bytes() for path in protected[:-1]]
    for path in protected:
        code, printed, error = run(*dataset_arguments(data), "--output", path)
        assert (code, printed) == (2, "")
        assert "--output" in error
    assert [path.read_bytes() for path in protected[:-1]] == before
    assert protected[-1].is_symlink()
    two_channel = "--format", "two-channel-png", "--masks", data.masks, "--images", data.images
    two_channel = (*two_channel, "--categories", data.json_path)
    for path in (data.json_path, data.png(), data.image_path()):
        assert run(*two_channel, "--output", path)[0] == 2
    (tmp_path / "new").touch()
    (data.masks / "empty.png").unlink()
    for path in (tmp_path / "new", tmp_path / "new", data.masks / "issues.json"):
        assert run(*dataset_arguments(data), "--output", path)[0] == 0
    damage_areas(data)
    for _ in range(2):
        assert run(*dataset_arguments(data), "--output", tmp_path / "new")[0] == 1
    assert len(json.loads((tmp_path / "new").read_text())) == 6


def test_an_empty_list_of_results_is_not_an_issues_file(run, data, tmp_path):
    (tmp_path / "r.json").write_text("[]")
    where = "--format", "coco-results", "--json", tmp_path / "r.json", "--images", data.images
    assert run(*where, "--dataset", data.json_path, "--output", tmp_path / "r.json")[0] == 2
    code, printed, _ = run(*where, "--dataset", data.json_path)
    assert code == 0
    assert "note not-read (1): " in printed  # images have no result left
    assert "images have no result left" in printed


def test_another_split_that_does_not_exist(run, data, tmp_path):
    """The error is raised before the check starts."""
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "junk.json").write_text('{"images": [{"file_name": 3}]}')
    (tmp_path / "bare.json").write_text('{"images": []}')
    (tmp_path / "bare").mkdir()
    for name in ("none", "bad.json", "junk.json", "bare.json", "bare"):
        code, printed, error = run(*dataset_arguments(data), "--against", tmp_path / name)
        assert (code, printed) == (2, "")
        assert f"--against: {tmp_path / name}" in error
    for own in (data.json_path, data.images):
        assert run(*dataset_arguments(data), "--against", own)[0] == 2
    assert run(*dataset_arguments(data), "--against", data.images.parent / "images/../images")[0] == 2


def test_another_split_in_a_folder_above_or_below(run, data, tmp_path):
    """In a folder above, this split's own images do not count; a folder below is another split."""
    Image.fromarray(noise(2)).save(tmp_path / "again.png")
    code, printed, _ = run(*dataset_arguments(data), "--against", tmp_path)
    assert (code, "error image-shared (1)" in printed) == (1, True)
    assert f"{data.image_path(2)}: it shows the same pixels as {tmp_path / 'again.png'}" in printed
    (data.images / "val").mkdir()
    Image.fromarray(noise(3)).save(data.images / "val/3.png")
    code, printed, _ = run(*dataset_arguments(data), "--against", data.images / "val")
    assert (code, "error image-shared (1)" in printed) == (1, True)


def test_another_split_by_its_name(run, tmp_path, monkeypatch):
    """Damaged files of the other split are not reported here; the name of no split is wrong usage."""
    for folder, first in (("images", 0), ("labels", 10)):
        for split in ("train", "val"):
            (tmp_path / folder / split).mkdir(parents=True)
            for index in range(2):
                pixels = noise(first + index)[..., : 3 if folder == "images" else 1].squeeze()
                Image.fromarray(pixels).save(tmp_path / folder / split / f"{split}{index}.png")
    Image.fromarray(noise(7)).save(tmp_path / "images/val/val1.png")
    (tmp_path / "labels/val/val1.png").write_bytes(b"")
    where = "--format", "instance-maps", "--root", tmp_path, "--split", "train"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "val").mkdir()  # a folder of that name is not used
    code, printed, error = run(*where, "--against", "val")
    assert "error image-shared (1)" in printed, printed + error
    assert code == 1
    code, printed, error = run(*where, "--against", "test")
    assert (code, printed) == (2, "")
    assert "--against" in error


def test_segments_dropped_by_a_repair_are_printed(run, data, tmp_path):
    content = data.load()
    content["annotations"][0]["segments_info"].append({**content["annotations"][0]["segments_info"][0], "id": 8})
    data.store(content)
    _, printed, _ = run(*dataset_arguments(data), "--fix", tmp_path / "copy")
    review = printed.split("a repaired copy. To review:\n  ")[1].splitlines()
    assert "segment" in review[0]
    assert review[-1] == "no issues"


def test_paths_that_are_too_long(run, data, tmp_path):
    long = "x" * 5000
    for name in ("--json", "--masks", "--images"):
        code, printed, _ = run(*dataset_arguments(data), name, long)
        assert (code, "error" in printed) == (1, True)
    assert run(*dataset_arguments(data), "--against", long)[0] == 2
    with pytest.raises(DatasetError):
        run(*dataset_arguments(data), "--output", tmp_path / long)
    with pytest.raises(DatasetError):
        run(*dataset_arguments(data), "--fix", tmp_path / long)


def test_files_of_the_other_split_are_no_orphans(run, data, tmp_path):
    """Both splits are in one folder; their JSONs say which image belongs to which."""
    content = data.load()
    other = {**content, "images": content["images"][3:], "annotations": content["annotations"][3:]}
    (tmp_path / "val.json").write_text(json.dumps(other))
    data.store({**content, "images": content["images"][:3], "annotations": content["annotations"][:3]})
    assert "image-orphan (3)" in run(*dataset_arguments(data))[1]
    code, printed, _ = run(*dataset_arguments(data), "--against", tmp_path / "val.json")
    assert (code, printed) == (0, "no issues\n")
