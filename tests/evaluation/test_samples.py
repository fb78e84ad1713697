"""The grid of images beside ground truth and prediction."""

import numpy as np

from segkit.evaluation.samples import Sample, draw_samples
from segkit.structures import Category, CategorySet, PanopticSegmentation, Segment

CAR, SKY = Category(1, "car", True, (200, 0, 0)), Category(2, "sky", False, (0, 0, 200))
SIZE = 16


def draw_cells(categories: CategorySet) -> tuple[np.ndarray, np.ndarray]:
    """Returns the right halves, which are void, of the ground truth and the prediction in the grid."""
    ids = np.repeat([[1, 0]], SIZE, axis=0).repeat(SIZE // 2, axis=1).astype(np.int32)
    segmentation = PanopticSegmentation(ids, (Segment(1, 1, True, SIZE * SIZE // 2),))
    image = np.full((SIZE, SIZE, 3), 90, dtype=np.uint8)
    grid = draw_samples([Sample(image, segmentation, segmentation)], categories)
    is_image = (grid == 90).all(axis=2)
    rows, columns = np.flatnonzero(is_image.any(axis=1)), np.flatnonzero(is_image.any(axis=0))
    cells = grid[rows[0] : rows[0] + SIZE]
    step = (columns[-1] + 1 - SIZE - columns[0]) // 2  # the last cell's void is as the image is
    halves = [cells[:, columns[0] + n * step + SIZE - 4 : columns[0] + n * step + SIZE] for n in (1, 2)]
    return halves[0], halves[1]


def test_void_is_hatched_in_a_panoptic_ground_truth_alone() -> None:
    ground_truth, prediction = draw_cells(CategorySet([CAR, SKY]))
    assert (ground_truth != 90).any()
    assert (prediction == 90).all()
    ground_truth, prediction = draw_cells(CategorySet([CAR]))  # what is not labelled is background
    assert (ground_truth == 90).all()
    assert (prediction == 90).all()
