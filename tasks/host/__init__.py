"""What this machine is and does: files, processes, git, uv, downloads, PM2, ComfyUI. No doit."""
