"""Write the report as one HTML page: templates, charts, and a summary in sentences."""
