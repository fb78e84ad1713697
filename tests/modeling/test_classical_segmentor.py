"""ClassicalSegmentor on drawn images: classes of regions, Detectron2's outputs, its state."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from segkit.modeling.meta_arch import ClassicalSegmentor
from segkit.utils.errors import ConfigError

RED, GREEN, GRAY = (250, 120, 120), (20, 200, 20), (60, 60, 60)


def build(method: str = "otsu", things: int = 1, stuff: int = 1, **arguments: Any) -> ClassicalSegmentor:
    """A model with one channel for all things, on RGB images, that smooths nothing."""
    options = {"blur_px": 0.0, **arguments.pop("options", {})}
    ids = {"stuff_ids": [*range(stuff + 1)], "thing_ids": [-1] * (stuff + 1)}
    return ClassicalSegmentor(
        method=method, options=options, num_things=things, image_format="RGB", **{**ids, **arguments}
    ).eval()


def two_discs() -> np.ndarray:
    """(30, 50, 3): a red disc at x = 12, a larger green one at x = 35, on gray."""
    image = np.full((30, 50, 3), GRAY, dtype=np.uint8)
    cv2.circle(image, (12, 15), 7, RED, -1)
    cv2.circle(image, (35, 15), 9, GREEN, -1)
    return image


def run(model: ClassicalSegmentor, image: np.ndarray, **size: int) -> Any:
    return model([{"image": torch.from_numpy(image.transpose(2, 0, 1).copy()), **size}])[0]


def show_classes(model: ClassicalSegmentor) -> ClassicalSegmentor:
    """Let it see red of class 0, green of class 1 and gray of class 2."""
    model.observe(np.array([[RED, GREEN, GRAY, (0, 0, 0)]], dtype=np.uint8), np.array([[0, 1, 2, -1]]))
    return model


def test_one_thing_and_one_stuff_class_need_no_training() -> None:
    output = run(build(), two_discs())
    ids, segments = output["panoptic_seg"]
    assert [(s["isthing"], s["category_id"]) for s in segments] == [(True, 0), (True, 0), (False, 1)]
    assert [s["score"] for s in segments[:2]] == [1.0, 1.0]
    assert ids[15, 12] != ids[15, 35]
    assert ids[0, 0] == segments[2]["id"]
    instances = output["instances"]
    assert instances.pred_classes.tolist() == [0, 0]
    assert sorted(instances.pred_boxes.tensor.tolist()) == [[5, 8, 20, 23], [26, 6, 45, 25]]  # centre -+ radius
    for mask, crop in zip(instances.pred_masks, output["instance_masks"].to_full(), strict=True):
        assert (mask.numpy() == crop).all()
    channels = output["sem_seg"].argmax(dim=0)
    assert output["sem_seg"].shape == (2, 30, 50)
    assert (channels == 0).numpy().tolist() == (instances.pred_masks.any(dim=0)).numpy().tolist()


def test_regions_have_the_classes_of_their_colours() -> None:
    model = show_classes(build(things=2))
    ids, segments = run(model, two_discs())["panoptic_seg"]
    meaning = {s["id"]: (s["isthing"], s["category_id"]) for s in segments}
    assert meaning[int(ids[15, 12])] == (True, 0)
    assert meaning[int(ids[15, 35])] == (True, 1)
    assert meaning[int(ids[0, 0])] == (False, 1)
    assert all(s["score"] > 0.99 for s in segments if s["isthing"])


def test_things_come_by_falling_score() -> None:
    model = build(things=2)
    # Half of the red pixels are of class 0, the others of the stuff; all green ones are of class 1.
    model.observe(np.array([[RED, RED, GREEN]], dtype=np.uint8), np.array([[0, 2, 1]]))
    _, segments = run(model, two_discs())["panoptic_seg"]
    scores = [(s["category_id"], s["score"]) for s in segments if s["isthing"]]
    assert scores == [(1, pytest.approx(1, abs=1e-3)), (0, pytest.approx(0.5, abs=1e-3))]


def test_regions_of_a_partition_may_be_stuff() -> None:
    pytest.importorskip("skimage")
    model = show_classes(build("felzenszwalb", things=1, stuff=2))
    ids, segments = run(model, two_discs())["panoptic_seg"]
    meaning = {s["id"]: (s["isthing"], s["category_id"]) for s in segments}
    assert meaning[int(ids[15, 12])] == (True, 0)
    assert meaning[int(ids[15, 35])] == (False, 1)  # green is the first stuff class here
    assert meaning[int(ids[0, 0])] == (False, 2)


def test_without_stuff_other_pixels_are_void() -> None:
    output = run(build(stuff=0), two_discs())
    ids, segments = output["panoptic_seg"]
    assert len(segments) == 2
    assert ids[0, 0] == 0
    assert output["sem_seg"][:, 0, 0].tolist() == [0]


def test_without_things_there_is_a_semantic_map_alone() -> None:
    model = build("multi_otsu", things=0, stuff=3, stuff_ids=[1, 2, 3], thing_ids=[-1] * 3, options={"classes": 3})
    output = run(show_classes(model), two_discs())
    assert set(output) == {"sem_seg"}
    channels = output["sem_seg"].argmax(dim=0)
    assert [int(channels[15, x]) for x in (12, 35, 0)] == [0, 1, 2]


def test_a_channel_per_class() -> None:
    # channels: the stuff, then thing 1, then thing 0
    model = show_classes(build(things=2, stuff_ids=[1, 0, 0], thing_ids=[-1, 1, 0]))
    channels = run(model, two_discs())["sem_seg"].argmax(dim=0)
    assert [int(channels[15, x]) for x in (12, 35, 0)] == [2, 1, 0]


def test_outputs_have_the_size_that_is_asked_for() -> None:
    output = run(build(), two_discs(), height=60, width=25)
    assert output["panoptic_seg"][0].shape == (60, 25)
    assert output["sem_seg"].shape == (2, 60, 25)
    assert output["instances"].image_size == (60, 25)
    assert sorted(output["instances"].pred_boxes.tensor[:, 0].tolist()) == [2, 13]
    # Column x is column 2 x + 1 of the input: 2 is the first from 5 on, 13 the first from 26 on.


def test_bgr_images_are_turned() -> None:
    model = show_classes(build(things=2))
    turned = ClassicalSegmentor(
        method="otsu", options={"blur_px": 0.0}, num_things=2, stuff_ids=[0, 1], thing_ids=[-1, -1], image_format="BGR"
    )
    turned.load_state_dict(model.state_dict())
    ids, expected = (run(m, i)["panoptic_seg"][0] for m, i in ((turned, two_discs()[:, :, ::-1]), (model, two_discs())))
    assert torch.equal(ids, expected)


def test_classes_that_were_never_seen_cannot_be_told_apart() -> None:
    with pytest.raises(ConfigError, match="has to tell classes apart, but has seen no training images; train it"):
        run(build(things=2), two_discs())


def test_the_state_is_read_back_with_weights_only_and_given_options_come_first() -> None:
    model = show_classes(build("watershed"))
    model.set_options({"depth_px": 2.0, "objects": "dark", "min_area_px": 7})
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    other = build("watershed", options={"min_area_px": 9})
    other.load_state_dict(state)
    assert (other.method.depth_px, other.method.objects, other.method.min_area_px) == (2.0, "dark", 9)
    assert type(other.method.min_area_px) is int
    with pytest.raises(RuntimeError, match="Missing key"):
        build("otsu").load_state_dict(state)


def test_settings_vary_the_grid_but_not_what_is_given() -> None:
    settings = [*build("watershed", options={"gamma": 1.0}).list_settings()]
    assert settings[0] == {}
    assert len(settings) == 1 + 4 * 3  # depth_px and min_area_px; blur_px and gamma are given
    assert set(settings[1]) == {"depth_px", "min_area_px"}


def test_other_image_formats_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"INPUT.FORMAT: classical methods need images in RGB, BGR or L, got 'YUV"):
        ClassicalSegmentor(method="otsu", num_things=1, stuff_ids=[0, 1], thing_ids=[-1, -1], image_format="YUV-BT.601")
