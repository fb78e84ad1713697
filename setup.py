"""Package and console command of segkit. Requirements: segkit/requirements.json; tool settings: pyproject.toml."""

import json
import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "segkit/__init__.py").read_text()).group(1)

# light: what scoring, checking, converting and fusing import. train: torch, and what Detectron2 imports, since `segkit
# doctor --install-detectron2` installs it without its own pins (setuptools<81: its model_zoo imports pkg_resources).
# fast: compiled and parallel ways of what works without them, with equal results; see docs/decisions/0003.
REQUIREMENTS = json.loads((HERE / "segkit/requirements.json").read_text(encoding="utf-8"))

URL = "https://github.com/segkit/segkit"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
CLASSIFIERS = [
    "Development Status :: 4 - Beta",
    "Intended Audience :: Developers",
    "Intended Audience :: Science/Research",
    "License :: OSI Approved :: Apache Software License",
    "Operating System :: OS Independent",
    "Programming Language :: Python :: 3",
    *(f"Programming Language :: Python :: {version}" for version in PYTHONS),
    "Topic :: Scientific/Engineering :: Artificial Intelligence",
    "Topic :: Scientific/Engineering :: Image Recognition",
    "Typing :: Typed",
]


def make_links_absolute(page: str) -> str:
    """The links of a page of the repository, for pages elsewhere."""
    page = re.sub(r"(!\[[^\]]*\]\()(?!https?:)", rf"\1{URL}/raw/main/", page)
    return re.sub(r"((?<!!)\[[^\]]*\]\()(?!https?:|#)", rf"\1{URL}/blob/main/", page)


setup(
    name="segkit",
    version=VERSION,
    description="Instance and panoptic segmentation on Detectron2",
    long_description=make_links_absolute((HERE / "README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
    author="The segkit authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    url=URL,
    project_urls={
        "Documentation": f"{URL}/tree/main/docs",
        "Changelog": f"{URL}/blob/main/CHANGELOG.md",
        "Issues": f"{URL}/issues",
    },
    classifiers=CLASSIFIERS,
    python_requires=REQUIREMENTS["python"],
    packages=[*find_packages(include=["segkit", "segkit.*"]), "segkit.configs"],
    package_dir={"segkit.configs": "configs"},
    package_data={
        "segkit": ["py.typed", "*.pyi", "report/templates/*", "requirements.json"],
        "segkit.configs": ["*/*.yaml"],
    },
    install_requires=REQUIREMENTS["light"],
    extras_require=REQUIREMENTS["extras"],
    entry_points={"console_scripts": ["segkit = segkit.cli.main:main"]},
)
