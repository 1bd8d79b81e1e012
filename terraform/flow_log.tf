# ─── Flow log: who connected to whom, for as long as var.flow_log_retention_days says ───

locals {
  flow_logs = var.flow_log_retention_days > 0 ? 1 : 0
}

resource "aws_cloudwatch_log_group" "flow_log" {
  # checkov:skip=CKV_AWS_158: addresses and ports, encrypted with the service's own key
  # checkov:skip=CKV_AWS_338: how long is for whoever pays to say
  count             = local.flow_logs
  name              = "/${var.name}/vpc-flow-log"
  retention_in_days = var.flow_log_retention_days
  tags              = { Name = "${var.name}-flow-log" }
}

resource "aws_flow_log" "vpc" {
  count           = local.flow_logs
  vpc_id          = aws_vpc.main.id
  traffic_type    = "ALL"
  log_destination = aws_cloudwatch_log_group.flow_log[0].arn
  iam_role_arn    = aws_iam_role.flow_log[0].arn
  tags            = { Name = "${var.name}-vpc" }

  # It must not exist before its role may write.
  depends_on = [aws_iam_role_policy.flow_log]
}

resource "aws_iam_role" "flow_log" {
  count       = local.flow_logs
  name        = "${var.name}-flow-log"
  description = "Lets VPC flow logs write the log of ${var.name}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "vpc-flow-logs.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = { StringEquals = { "aws:SourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
}

# Not logs:CreateLogGroup: what is delivered late would bring the group back after a destroy.
resource "aws_iam_role_policy" "flow_log" {
  count = local.flow_logs
  name  = "write-flow-log"
  role  = aws_iam_role.flow_log[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"]
      Resource = "${aws_cloudwatch_log_group.flow_log[0].arn}:*"
      }, {
      # Names no single group; delivery asks for it before it writes.
      Effect   = "Allow"
      Action   = "logs:DescribeLogGroups"
      Resource = "arn:${data.aws_partition.current.partition}:logs:${var.region}:${data.aws_caller_identity.current.account_id}:log-group:*"
    }]
  })
}
