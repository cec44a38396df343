"""Hessian-vector products, Lanczos, spectral density and trace."""
