"""Package, extras and console command of segkit; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "segkit/__init__.py").read_text()).group(1)

# The light half: what scoring, checking, converting and fusing import.
LIGHT = [
    "Jinja2>=3.1",
    "matplotlib>=3.7",
    "nibabel>=5",
    "numpy>=1.24",
    "opencv-python-headless>=4.8",
    "Pillow>=10.1",
    "pycocotools>=2.0.7",
    "PyYAML>=6",
    "rich>=13",
]
# What models need: torch, and what Detectron2 imports (tools/install_detectron2.py installs it without its own pins).
TRAIN = [
    "cloudpickle",
    "fvcore>=0.1.5",
    "hydra-core>=1.1",
    "iopath>=0.1.9",
    "omegaconf>=2.1,<2.4",
    "packaging",
    "setuptools<81",  # detectron2.model_zoo imports pkg_resources
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "torch>=2.4",
    "torchvision>=0.19",
    "tqdm>4.29.0",
    "yacs>=0.1.8",
]

setup(
    name="segkit",
    version=VERSION,
    description="Instance and panoptic segmentation on Detectron2",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["segkit", "segkit.*"]),
    package_data={"segkit": ["py.typed", "report/templates/*"]},
    install_requires=LIGHT,
    extras_require={
        "train": TRAIN,
        # Compiled and parallel ways of what works without them, with equal results; see docs/decisions/0003.
        "fast": ["msgspec>=0.19", "numba>=0.60", "ultrafast-pycocotools==0.1.14", "zlib-ng>=0.5"],
        "bench": ["hotcoco==1.3.0"],
        "export": ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.1"],
        "test": [
            "hypothesis>=6.100",
            "import-linter>=2.1",
            "mypy>=1.11",
            "pre-commit>=3.7",
            "pytest>=8",
            "ruff>=0.6",
        ],
    },
    entry_points={"console_scripts": ["segkit = segkit.cli.main:main"]},
)
