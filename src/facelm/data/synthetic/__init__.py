"""How a drawn face comes about, in order: mesh, variation, camera, look, brush, texture, render, head, photo."""
