"""Parts of the simulator that have other names in real ComfyUI."""
