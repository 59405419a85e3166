"""The page of an analysis: one HTML file that holds everything, and its charts as PNG files.

Needs matplotlib, jinja2, Pillow and tabulate.
"""

from .pictures import ImageFinder
from .terminal import format_table
from .write import NUM_IMAGES, PAGE_FILE, Page, make_page

__all__ = ["NUM_IMAGES", "PAGE_FILE", "ImageFinder", "Page", "format_table", "make_page"]
