"""What every ComfyUI does, simulated or real; where they differ, by the features that they have.

The simulator of examples/simulation is always tested, as of 2025 and of 2026. Real ComfyUI is
tested as well where ``REAL_COMFYUI_URL`` names a running one (on this machine), and where
``REAL_COMFYUI_DIR`` and ``REAL_COMFYUI_PYTHON`` name a checkout and the interpreter of its
environment, which the tests then start and stop by themselves (`-k real` is that alone).
"""
