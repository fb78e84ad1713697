"""What files need of a model."""

from __future__ import annotations

import pytest

from segkit.runtime.folder import SAVED, choose_outputs
from segkit.runtime.image_model import OUTPUTS, Output


@pytest.mark.parametrize(
    ("given", "save", "expected"),
    [
        (OUTPUTS, SAVED, ["panoptic", "instances"]),
        (OUTPUTS, ("overlays", "masks"), ["panoptic"]),
        (("instances",), ("overlays",), ["panoptic", "instances"]),  # what the model does not give is left out later
        (("semantic",), SAVED, [*OUTPUTS]),
    ],
)
def test_only_what_files_need_is_computed(
    given: tuple[Output, ...], save: tuple[str, ...], expected: list[Output]
) -> None:
    assert choose_outputs(given, save) == expected
