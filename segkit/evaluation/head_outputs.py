"""Save the heads' outputs of each image during an evaluation, so that they can be fused again without the network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import detectron2.utils.comm as comm
from torch import nn

from segkit.data.dataset import Record
from segkit.evaluation.base import ImageEvaluator, is_visible
from segkit.formats import coco, head_outputs
from segkit.formats.head_outputs import SavedImage
from segkit.fusion import LOGITS
from segkit.modeling.fusion_config import build_fusion_from_config
from segkit.structures import HeadOutputs
from segkit.utils.errors import ConfigError, DatasetError
from segkit.utils.text import abbreviate


class HeadOutputsEvaluator(ImageEvaluator):
    """Writes `head_outputs/`, as segkit.formats.head_outputs reads it; gives no results.

    Each process writes the files of its images. The main process writes the index when all files exist; an index of an
    earlier run is removed first. `EvaluatorOptions.export` has no effect. Constructor and methods: see
    `ImageEvaluator`.
    """

    needs = folder_name = "head_outputs"

    def reset(self) -> None:
        """See base class."""
        self._written: list[tuple[SavedImage, int]] = []  # with the bytes of its file
        png_names = coco.choose_png_names([(r["image_id"], r["file_name"]) for r in self.dataset.records])
        self._names = {image_id: f"{name.removesuffix('.png')}.npz" for image_id, name in png_names.items()}
        if comm.is_main_process():
            (self.folder / head_outputs.INDEX).unlink(missing_ok=True)

    def process_image(self, record: Record, output: dict[str, Any]) -> None:
        """See base class."""
        outputs: HeadOutputs = output[self.needs]
        entry, name = self.dataset.build_image_entry(record), self._names[record["image_id"]]
        size_hw = entry["height"], entry["width"]
        if outputs.semantic.size_hw != size_hw:
            got = f"{outputs.semantic.size_hw} of image {record['image_id']!r}"
            raise ValueError(f"head_outputs must be of the image's size {size_hw}, got {got}")
        space = self.ground_truth.space
        head_outputs.check_ids(outputs, self.dataset.categories, space.stuff_ids, space.thing_ids)
        head_outputs.write_image(self.folder, name, outputs, self.options.keep_logits)
        saved = SavedImage(record["image_id"], entry["file_name"], size_hw, name)
        self._written.append((saved, (self.folder / name).stat().st_size))

    def shard(self) -> Any:
        """See base class."""
        return self._written

    def finish(self, shards: list[Any]) -> dict[str, Any]:
        """See base class."""
        written = {image.image_id: (image, size) for shard in shards for image, size in shard}
        images = [written[image_id] for image_id in self.image_order if image_id in written]
        if hidden := [image.outputs for image, size in images if not is_visible(self.folder / image.outputs, size)]:
            raise DatasetError(
                f"{len(hidden)} of {len(images)} files that were written cannot be seen here: {abbreviate(hidden)}",
                where=self.folder,
                remedy="let all machines write into one folder on a shared file system",
            )
        space = self.ground_truth.space
        head_outputs.write_index(self.folder, [image for image, _ in images], self.dataset.categories, space)
        return {}


def check_saved_logits(cfg: Any) -> None:
    """Check TEST.KEEP_LOGITS before head outputs are saved with the fusion method of the config.

    Args:
        cfg: a config with segkit's keys and MODEL.PANOPTIC.THING_NAMES.

    Raises:
        ConfigError: the number is negative, or 0 although the fusion method needs logits.
    """
    count, fusion = cfg.TEST.KEEP_LOGITS, build_fusion_from_config(cfg)
    if count < 0:
        raise ConfigError(f"expected 0 or more logits per pixel, got {count}", where="TEST.KEEP_LOGITS")
    if count == 0 and LOGITS in fusion.needs:
        problem = f"{type(fusion).__name__} needs logits, but none are kept"
        raise ConfigError(problem, where="TEST.KEEP_LOGITS", remedy="keep some, or choose another method")


@contextmanager
def fusing_saved_values(model: nn.Module, keep_logits: int) -> Iterator[None]:
    """Let the model fuse the rounded values that a file of head outputs holds, so that both give the same map.

    Args:
        model: PanopticRCNN, plain or in DistributedDataParallel; a model without `rounding` stays as it is.
        keep_logits: the number of highest logits that are saved for each pixel, 0 for none.

    Returns:
        A context manager; at its end the model is as before.
    """
    inner: Any = getattr(model, "module", model)
    if not hasattr(inner, "rounding"):
        yield
        return
    before = inner.rounding, inner.with_logits
    inner.rounding = partial(head_outputs.round_head_outputs, keep_logits=keep_logits)
    inner.with_logits = keep_logits > 0
    try:
        yield
    finally:
        inner.rounding, inner.with_logits = before
