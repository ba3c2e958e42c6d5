"""Palate: from raw text to a model that people prefer, with the people in the loop."""
