"""What is trained on what: one file per workload, looked up by ``registry``."""
