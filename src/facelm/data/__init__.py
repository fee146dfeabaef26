"""300W on disk, crops of its faces, and loaders that repeat exactly."""
