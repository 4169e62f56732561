"""What a run found: text, JSON, CSV and HTML."""
