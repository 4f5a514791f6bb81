"""From seeds, styles (w) or photos to images. The only files written are files of styles."""
