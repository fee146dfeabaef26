"""Landmark schemes, affine maps and boxes: what points and boxes are."""
