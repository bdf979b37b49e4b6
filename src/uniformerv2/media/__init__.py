"""Video files to frames."""
