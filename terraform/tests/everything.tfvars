# Everything that is off by default, for checkov: what does not exist is not checked.
certificate_arn         = "arn:aws:acm:ap-south-1:123456789012:certificate/12345678-90ab-cdef-1234-567890abcdef"
domain                  = "api.example.org"
flow_log_retention_days = 30
tunnel_ssh_keys         = { reporting = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0hQUfnGVXl+vU0Rr2Yl1mY5sVmJ2bJ2wF4l0dXo9aB reporting@ci" }
