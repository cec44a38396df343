"""What is trained on what: one file per workload, looked up by ``registry``."""

from lora_alpha.extras import require

require("torch", by="lora_alpha.workloads")
