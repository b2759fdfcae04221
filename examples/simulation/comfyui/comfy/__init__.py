"""The few names of ComfyUI's library that model-free custom nodes import."""
