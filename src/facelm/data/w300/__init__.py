"""300W: its folders, its three annotation formats, its archives."""
