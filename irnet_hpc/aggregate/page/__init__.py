"""The report as one HTML page: templates, charts, and the summary in words."""
