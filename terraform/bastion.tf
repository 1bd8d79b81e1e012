# ─── Bastion: the only machine administrators reach, and only for ssh ─────────

locals {
  public_key = "^(ssh-ed25519|sk-ssh-ed25519@openssh\\.com|ecdsa-sha2-nistp(256|384|521)|sk-ecdsa-sha2-nistp256@openssh\\.com|ssh-rsa) AAAA[0-9A-Za-z+/]{40,}={0,3}( [^\\r\\n]*)?$"

  # The same in every host's user data: what sshd accepts for `admin` and for `tunnel`, in a stable order.
  # Anything else is left out, so that a private key pasted by mistake is not even in the plan, and refused below.
  admin_keys  = [for person in sort(keys(var.admin_ssh_keys)) : var.admin_ssh_keys[person] if can(regex(local.public_key, var.admin_ssh_keys[person]))]
  tunnel_keys = [for person in sort(keys(var.tunnel_ssh_keys)) : var.tunnel_ssh_keys[person] if can(regex(local.public_key, var.tunnel_ssh_keys[person]))]
}

resource "aws_instance" "bastion" {
  # checkov:skip=CKV_AWS_135: every current type is EBS-optimized without being told, and the older ones refuse to be told
  # checkov:skip=CKV_AWS_126: metrics by the minute cost extra per machine, and nothing here reads them
  ami                    = var.images.bastion
  instance_type          = var.instance_types.bastion
  subnet_id              = aws_subnet.main["management"].id
  vpc_security_group_ids = [aws_security_group.main["bastion"].id]
  iam_instance_profile   = aws_iam_instance_profile.host["bastion"].name

  # Base64, because the state keeps that readable and only a hash of plain user data. Not a secret
  # in it: every process on the host can read it, and so can whoever reads the state.
  user_data_base64 = base64encode(jsonencode({
    name        = var.name
    role        = "bastion"
    region      = var.region
    admin_keys  = local.admin_keys
    tunnel_keys = local.tunnel_keys
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
    tags        = { Name = "${var.name}-bastion-root" }
  }

  tags = { Name = "${var.name}-bastion" }

  lifecycle {
    precondition {
      condition     = length(local.admin_keys) == length(var.admin_ssh_keys)
      error_message = "admin_ssh_keys: not one line of an OpenSSH public key: ${join(", ", [for person, key in var.admin_ssh_keys : person if !can(regex(local.public_key, key))])}. Paste the content of the .pub file, e.g. ssh-ed25519 AAAA… alice@laptop, and never a private key."
    }
    precondition {
      condition     = length(local.tunnel_keys) == length(var.tunnel_ssh_keys)
      error_message = "tunnel_ssh_keys: not one line of an OpenSSH public key: ${join(", ", [for person, key in var.tunnel_ssh_keys : person if !can(regex(local.public_key, key))])}. Paste the content of the .pub file, e.g. ssh-ed25519 AAAA… build@ci, and never a private key."
    }
    precondition {
      # User data holds 16 KiB and carries the rest of the host's document too.
      condition     = length(join("", local.admin_keys, local.tunnel_keys)) <= 12000
      error_message = "admin_ssh_keys and tunnel_ssh_keys are longer than the 12000 characters that fit into user data: use ssh-ed25519 keys, about 80 characters each."
    }
  }

  # First boot reports to SSM: not before there is a way out and a right to do so.
  depends_on = [
    aws_route.public_internet,
    aws_route_table_association.main,
    aws_iam_role_policy.host,
    aws_vpc_security_group_egress_rule.bootstrap,
  ]
}

# Stays when the instance is replaced, so that the address people have in their firewalls does too.
resource "aws_eip" "bastion" {
  domain = "vpc"
  tags   = { Name = "${var.name}-bastion" }

  # The internet gateway cannot be detached while an address is in use.
  depends_on = [aws_internet_gateway.main]
}

resource "aws_eip_association" "bastion" {
  allocation_id = aws_eip.bastion.id
  instance_id   = aws_instance.bastion.id
}
