"""Small videos in VIPSeg's format, written without segkit."""

import json

import numpy as np
from PIL import Image

CAR, DOG, SKY = 1, 17, 90
CATEGORIES = [
    {"id": CAR, "name": "car", "isthing": 1},
    {"id": DOG, "name": "dog", "isthing": 1},
    {"id": SKY, "name": "sky", "isthing": 0},
]


def write_videos(json_path, folder, videos, **tables):
    """Write {video_id: {frame: (rows, {segment_id: category_id})}}, PNGs in folder/<video_id>/<frame>.png."""
    annotations = []
    for video_id, frames in videos.items():
        (folder / str(video_id)).mkdir(parents=True)
        entries = []
        for name, (rows, category_ids) in frames.items():
            ids = np.array(rows)
            rgb = np.stack([ids % 256, ids // 256 % 256, ids // 256**2], axis=-1).astype(np.uint8)
            Image.fromarray(rgb).save(folder / str(video_id) / f"{name}.png")
            infos = [
                {"id": i, "category_id": c, "iscrowd": 0, "area": int((ids == i).sum()), "bbox": [0, 0, 1, 1]}
                for i, c in category_ids.items()
            ]
            entries.append({"file_name": f"{name}.png", "segments_info": infos})
        annotations.append({"video_id": video_id, "annotations": entries})
    json_path.write_text(json.dumps({"annotations": annotations, **tables}))
    return json_path


def vipseg_tree(root, ground_truth, predictions):
    """The JSONs of ground truth and predictions, at the places of VIPSeg and of its submissions."""
    (root / "VIPSeg").mkdir()
    (root / "submission").mkdir()
    gt_json = root / "VIPSeg" / "panoptic_gt_VIPSeg_val.json"
    write_videos(gt_json, root / "VIPSeg" / "panomasksRGB", ground_truth, categories=CATEGORIES)
    return gt_json, write_videos(root / "submission" / "pred.json", root / "submission" / "pan_pred", predictions)


CLIP = {f"{number:08d}": ([[1, 1, 1, 1], [2, 2, 2, 2]], {1: CAR, 2: SKY}) for number in (5, 6, 7, 8)}
SWITCHED = {
    f"{number:08d}": ([[car] * 4, [70000] * 4], {car: CAR, 70000: SKY})
    for number, car in zip((5, 6, 7, 8), (300, 300, 301, 301), strict=True)
}
