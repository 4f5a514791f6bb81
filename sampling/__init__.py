"""Seeds, styles (w) and photos become images. No files but styles are written."""
