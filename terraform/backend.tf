# ─── Backend: the API, in a private subnet ────────────────────────────────────

resource "aws_instance" "backend" {
  # checkov:skip=CKV_AWS_135: every current type is EBS-optimized without being told, and the older ones refuse to be told
  # checkov:skip=CKV_AWS_126: metrics by the minute cost extra per machine, and nothing here reads them
  ami                    = var.images.backend
  instance_type          = var.instance_types.backend
  subnet_id              = aws_subnet.main["backend"].id
  vpc_security_group_ids = [aws_security_group.main["backend"].id]
  iam_instance_profile   = aws_iam_instance_profile.host["backend"].name

  user_data_base64 = base64encode(jsonencode({
    name             = var.name
    role             = "backend"
    region           = var.region
    admin_keys       = local.admin_keys
    tunnel_keys      = local.tunnel_keys
    database_address = local.database_address
  }))

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = var.root_volume_gib
    encrypted   = true
    tags        = { Name = "${var.name}-backend-root" }
  }

  tags = { Name = "${var.name}-backend" }

  # No boot races the window: the way out stands before the instance does. Closing the window later
  # removes the route and leaves the instance alone.
  depends_on = [
    aws_route.private_internet,
    aws_route_table_association.main,
    aws_iam_role_policy.host,
    aws_vpc_security_group_egress_rule.bootstrap,
  ]
}
