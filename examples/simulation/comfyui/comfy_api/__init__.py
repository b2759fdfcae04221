"""ComfyUI's newer interface for custom nodes, as far as model-free nodes need it."""
