"""Geometry of images and boxes that data and models share: canvases, affine crops, polygons."""
