"""mergekit's configurations, read and written."""
