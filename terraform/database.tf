# ─── Database: Postgres on its own volume, in a private subnet ────────────────

locals {
  # Fixed, so that a replaced database keeps the address the backend knows from its user data.
  database_address = cidrhost(var.subnet_cidrs.database, 10)
}

resource "aws_instance" "database" {
  # checkov:skip=CKV_AWS_135: every current type is EBS-optimized without being told, and the older ones refuse to be told
  # checkov:skip=CKV_AWS_126: metrics by the minute cost extra per machine, and nothing here reads them
  ami                    = var.images.database
  instance_type          = var.instance_types.database
  subnet_id              = aws_subnet.main["database"].id
  private_ip             = local.database_address
  vpc_security_group_ids = [aws_security_group.main["database"].id]
  iam_instance_profile   = aws_iam_instance_profile.host["database"].name

  user_data_base64 = base64encode(jsonencode({
    name         = var.name
    role         = "database"
    region       = var.region
    admin_keys   = local.admin_keys
    tunnel_keys  = local.tunnel_keys
    backend_cidr = var.subnet_cidrs.backend
    data_volume  = aws_ebs_volume.database.id
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
    tags        = { Name = "${var.name}-database-root" }
  }

  tags = { Name = "${var.name}-database" }

  depends_on = [
    aws_route.private_internet,
    aws_route_table_association.main,
    aws_iam_role_policy.host,
    aws_vpc_security_group_egress_rule.bootstrap,
  ]
}

# Outlives the instance: a new image gets the old data. It outlives the deployment too: Terraform
# refuses every plan that would destroy it. scripts/destroy.sh destroys the rest, or all on request.
resource "aws_ebs_volume" "database" {
  # checkov:skip=CKV_AWS_189: encrypted with the account's own aws/ebs key; a key of one's own costs per month and can be lost
  availability_zone = local.zone.main
  type              = "gp3"
  size              = var.database_volume_gib
  encrypted         = true
  tags              = { Name = "${var.name}-database" }

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_volume_attachment" "database" {
  instance_id = aws_instance.database.id
  volume_id   = aws_ebs_volume.database.id
  device_name = "/dev/sdf"

  # Postgres has the volume mounted: detached under it, the detach hangs as busy and the last writes
  # are at risk. Stopping the instance first ends Postgres in order.
  stop_instance_before_detaching = true
}
