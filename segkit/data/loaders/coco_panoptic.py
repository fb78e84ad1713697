"""A panoptic dataset from its JSON and PNG folder; all else is derived."""

from __future__ import annotations

from pathlib import Path

from segkit.data.catalog import register_dataset
from segkit.data.dataset import PANOPTIC_METRICS, Dataset, Record
from segkit.data.files import LISTED, check_files_exist
from segkit.data.loaders.coco_instances import annotations_by_image
from segkit.formats import cache as annotation_cache
from segkit.structures import CategorySet
from segkit.utils.errors import DatasetError


def register_panoptic(
    name: str,
    panoptic_json: str | Path,
    panoptic_root: str | Path,
    image_root: str | Path | None = None,
    instances_json: str | Path | None = None,
) -> None:
    """Register a panoptic dataset in COCO's format: the JSON and the folder of its PNGs are enough.

    Instance masks, semantic maps, id maps, class counts and metrics are derived. image_root: the folder of the images,
    by default found beside the PNGs (see `find_image_root`). instances_json: COCO instances of the same images, where
    boxes and masks should be trained and judged on them (overlapping masks) instead of on the derived ones.
    Nothing is read yet; `load_dataset` raises DatasetError for what is missing or contradicts itself.
    """
    register_dataset(
        name, lambda: load_coco_panoptic(name, panoptic_json, panoptic_root, image_root, instances_json=instances_json)
    )


def load_coco_panoptic(
    name: str,
    panoptic_json: str | Path,
    panoptic_root: str | Path,
    image_root: str | Path | None = None,
    instances_json: str | Path | None = None,
    categories: CategorySet | None = None,
) -> Dataset:
    """Read the JSON and see that every image and PNG exists; `categories`: what the file must hold, if known."""
    file, png_root = annotation_cache.read_panoptic(panoptic_json), Path(panoptic_root)
    if categories is not None:
        _check_categories(file.categories, categories, file.path)
    names = [image["file_name"] for image in file.images]
    images = Path(image_root) if image_root else find_image_root(file.path, png_root, names)
    check_files_exist(images, names, "image", f"listed in {file.path}")
    check_files_exist(png_root, [i["png_name"] for i in file.images], "panoptic PNG", f"listed in {file.path}")
    records: list[Record] = [
        {
            "file_name": str(images / image["file_name"]),
            "image_id": image["id"],
            "height": image["height"],
            "width": image["width"],
            "pan_seg_file_name": str(png_root / image["png_name"]),
            "pan_seg_format": "coco_panoptic",
            "segments_info": segments_info,
        }
        for image, segments_info in zip(file.images, file.annotations, strict=True)
    ]
    if instances_json is not None:
        found = annotations_by_image(annotation_cache.read_instances(instances_json), file.categories)
        for record in records:
            record["annotations"] = found.get(record["image_id"], [])
    return Dataset(
        name,
        file.categories,
        PANOPTIC_METRICS,
        records,
        Path(instances_json) if instances_json is not None else None,
        metadata={"panoptic_json": str(panoptic_json), "panoptic_root": str(panoptic_root), "image_root": str(images)},
    )


def find_image_root(panoptic_json: Path, panoptic_root: Path, file_names: list[str]) -> Path:
    """The folder that holds the first image of the JSON, looked for where datasets in COCO's layout keep it.

    For PNGs in `R/panoptic_val2017` or `R/annotations/panoptic_val2017`: R/val2017, R/images/val2017, R/images and R;
    the same beside the JSON. The PNGs' own folder is none of them, since images may have the PNGs' names. Raises
    DatasetError that lists the places.
    """
    stem = panoptic_root.name.removeprefix("panoptic_")
    bases = [panoptic_root.parent, panoptic_root.parent.parent, panoptic_json.parent, panoptic_json.parent.parent]
    places = [base / inner for base in bases for inner in (stem, f"images/{stem}", "images", ".")]
    places = [place for place in dict.fromkeys(places) if place != panoptic_root]
    for place in places:
        if file_names and (place / file_names[0]).is_file():
            return place
    raise DatasetError(
        f"cannot find the image {file_names[0] if file_names else ''} in {', '.join(map(str, places))}",
        where=panoptic_json,
        remedy="give the folder of the images as image_root",
    )


def _check_categories(found: CategorySet, expected: CategorySet, path: Path) -> None:
    wanted = {(c.category_id, c.name, c.isthing) for c in expected.categories}
    got = {(c.category_id, c.name, c.isthing) for c in found.categories}
    if wanted != got:
        raise DatasetError(
            f"expected the {len(wanted)} categories of this dataset, got {len(got)}; they differ in "
            f"{sorted(wanted ^ got)[:LISTED]}",
            where=path,
            remedy="register a dataset of your own by DATASETS.CUSTOM",
        )
