"""The same images fused by several methods, to be looked at side by side."""

from __future__ import annotations

from collections.abc import Sequence

from segkit.formats.head_outputs.folder import SavedHeadOutputs, SavedImage
from segkit.fusion import FUSION_METHODS
from segkit.scoring.fusion.options import grid
from segkit.scoring.fusion.run import check_needs, fuse_to_dataset
from segkit.structures import PanopticSegmentation
from segkit.utils.errors import ConfigError


def fusions_of(
    saved: SavedHeadOutputs, image_ids: Sequence[str], names: Sequence[str], assignments: Sequence[str]
) -> list[tuple[SavedImage, dict[str, PanopticSegmentation]]]:
    """Each image with its segmentation by each method, category ids of the dataset.

    image_ids: as text. names: methods; none for all that the saved predictions allow. assignments: `option=value`.
    ConfigError for an unknown image, method or option, and a named method that needs what was not saved.
    """
    by_id = {str(image.image_id): image for image in saved.images}
    if unknown := [image_id for image_id in image_ids if image_id not in by_id]:
        raise ConfigError(
            f"there is no image {unknown[0]!r}", where=saved.folder, remedy=f"ids are {[*by_id][:5]}, ..."
        )
    settings = grid(names or [*FUSION_METHODS], (), saved.categories, assignments)
    fusions = {name: of_method[0].fusion for name, of_method in settings.items()}
    if names:
        check_needs(saved, fusions.values())
    found = []
    for image_id in image_ids:
        outputs, made = saved.read(by_id[image_id]), {}
        for name, fusion in fusions.items():
            try:
                made[name] = fuse_to_dataset(fusion, outputs, saved.categories)
            except ConfigError:
                if names:
                    raise
        found.append((by_id[image_id], made))
    return found
