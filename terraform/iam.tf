# ─── Roles of the hosts: exactly the parameters each one writes or reads ──────

locals {
  may_write = {
    bastion  = []
    backend  = []
    database = [aws_ssm_parameter.database_login.arn, aws_ssm_parameter.database_certificate.arn]
  }
  may_read = {
    bastion = []
    backend = [aws_ssm_parameter.database_login.arn, aws_ssm_parameter.database_certificate.arn]
    # Whether a rotation that was interrupted had got as far as publishing.
    database = [aws_ssm_parameter.database_login.arn]
  }
}

resource "aws_iam_role" "host" {
  for_each    = toset(local.machines)
  name        = "${var.name}-${each.key}"
  description = "The ${each.key} of ${var.name}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy" "host" {
  for_each = toset(local.machines)
  name     = "parameters"
  role     = aws_iam_role.host[each.key].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(
      [{
        Sid    = "Publish"
        Effect = "Allow"
        Action = ["ssm:PutParameter"]
        Resource = concat(
          [aws_ssm_parameter.bootstrap_report[each.key].arn, aws_ssm_parameter.ssh_host_key[each.key].arn],
          local.may_write[each.key],
        )
      }],
      # IAM refuses a statement with an empty list of resources.
      length(local.may_read[each.key]) == 0 ? [] : [{
        Sid      = "Read"
        Effect   = "Allow"
        Action   = ["ssm:GetParameter", "ssm:GetParameters"]
        Resource = local.may_read[each.key]
      }],
    )
  })
}

resource "aws_iam_instance_profile" "host" {
  for_each = toset(local.machines)
  name     = "${var.name}-${each.key}"
  role     = aws_iam_role.host[each.key].name
}
