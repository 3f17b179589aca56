"""Numbers from what was observed. Knows no models and no files; whatever a metric needs is passed in."""
