"""The parts of the simulator that real ComfyUI has under other names."""
