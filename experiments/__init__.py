"""What was found out with Retrato, as commands that repeat it: see doc/two_faces.md."""
