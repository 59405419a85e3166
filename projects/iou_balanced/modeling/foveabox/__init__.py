"""FoveaBox (arXiv 1904.03797)."""
