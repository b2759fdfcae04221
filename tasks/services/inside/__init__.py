"""Code that runs inside ComfyUI's process: standard library only; its errors never stop ComfyUI.

A constant line in the environment's site-packages (`hook.LINE`) runs `entry.py` in the one
process that the exec shim names by pid. A child inherits the variable but has another pid; a
program that execs itself keeps its pid.
"""
