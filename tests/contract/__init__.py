"""What every ComfyUI does, simulated or real.

The simulator of examples/simulation is always tested. Real ComfyUI is tested as well where
``REAL_COMFYUI_URL`` names a running one (on this machine), and where ``REAL_COMFYUI_DIR`` and
``REAL_COMFYUI_PYTHON`` name a checkout and the interpreter of its environment, which the tests
then start and stop by themselves.
"""
