"""What runs inside ComfyUI's own process: standard library only, and never a reason for it to fail.

A constant line in the environment's site-packages (`hook.LINE`) runs `entry.py` in the one
process that the exec shim names. Children inherit the number of another process, a program that
is started again by exec keeps its own.
"""
