"""From predicted landmarks to metrics, reports, figures and comparisons."""
