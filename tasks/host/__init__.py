"""What the machine is and does: processes, git, uv, files, GPUs, ports, PM2, ComfyUI. No doit."""
