"""What PM2 keeps running beside ComfyUI. Nothing here imports doit."""
