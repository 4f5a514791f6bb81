"""The page of explore.py. Gradio is in layout.py only."""
