"""Hessian-vector products, Lanczos, spectral density and trace."""

from lora_alpha.extras import require

require("torch", by="lora_alpha.curvature")
