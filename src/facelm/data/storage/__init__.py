"""Faces kept in files: crop caches, the index, packs, and how each is coded, found again and copied."""
