#!/usr/bin/env python3
"""Decode and resize a photo: at full size against INPUT.DRAFT_JPEG. Prints the ratio and the difference of the pixels.

python benchmarks/draft_jpeg.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from segkit.formats.image_io import open_image

SIZES_HW = ((480, 640), (1080, 1920), (3000, 4000))
SHORTEST_PX = (480, 800)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        for size_hw in SIZES_HW:
            path = Path(folder) / "photo.jpg"
            Image.fromarray(draw_photo(size_hw)).save(path, quality=92)
            for shortest in SHORTEST_PX:
                print(compare(path, size_hw, shortest, rounds), flush=True)


def draw_photo(size_hw: tuple[int, int]) -> np.ndarray:
    """Smooth noise of every scale, as photos have."""
    rng, photo = np.random.default_rng(0), np.zeros((*size_hw, 3), dtype=np.float32)
    for octave in range(2, 10):
        noise = rng.normal(size=(2**octave, 2**octave, 3)).astype(np.float32) * 0.6**octave
        photo += cv2.resize(noise, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
    photo = 255 * (photo - photo.min()) / np.ptp(photo)
    return photo.astype(np.uint8)


def compare(path: Path, size_hw: tuple[int, int], shortest: int, rounds: int) -> str:
    height, width = (round(side * shortest / min(size_hw)) for side in size_hw)
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        pixels = []
        for least_hw, measured in zip((None, (height, width)), times, strict=True):
            begin = time.perf_counter()
            resized = open_image(path, least_hw).resize((width, height), Image.Resampling.BILINEAR)
            measured.append(1e3 * (time.perf_counter() - begin))
            pixels.append(np.asarray(resized, dtype=np.int16))
    full, draft = (statistics.median(measured) for measured in times)
    difference = np.abs(pixels[0] - pixels[1]).mean()
    sizes = f"{size_hw[0]} x {size_hw[1]} -> {height} x {width}"
    return f"{sizes}: {full:.0f} ms / {draft:.0f} ms = {full / draft:.1f}x, mean difference {difference:.2f} of 255"


if __name__ == "__main__":
    main()
