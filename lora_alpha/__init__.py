"""The science of LoRA scaling: adapters, packed training, curvature and law fitting."""
