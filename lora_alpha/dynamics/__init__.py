"""Statistics of single optimiser steps: signal, drift, norms."""

from lora_alpha.extras import require

require("torch", by="lora_alpha.dynamics")
