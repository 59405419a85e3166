"""The page of an analysis: one HTML file that holds everything, and its charts as PNG files."""

from .write import PAGE_FILE, make_page, write_page

__all__ = ["PAGE_FILE", "make_page", "write_page"]
