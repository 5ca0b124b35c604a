"""The parts of the page, each with its widgets. Only these and `page.py` know gradio's widgets."""
