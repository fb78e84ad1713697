"""Reports for people: segments drawn over images, image grids, tables for the terminal, a self-contained HTML page."""

from segkit.report.grids import draw_image_grid
from segkit.report.overlay import draw_instances, draw_panoptic
from segkit.report.page import write_page
from segkit.report.tables import metrics_table

__all__ = ["draw_image_grid", "draw_instances", "draw_panoptic", "metrics_table", "write_page"]
