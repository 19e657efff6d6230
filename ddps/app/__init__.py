"""The web page of `ddps app`: uploads → a refiner → pictures, legend, figures and downloads.

Only `page.py` and `server.py` know Gradio, which is an extra; everything else is plain functions.
"""
