# ─── NAT window: the private half's way to the internet, while var.nat_gateway ───
#
# Closing destroys exactly schedule, route, gateway and address, and the next plan is empty.
# Costs while it stands: the gateway per hour and per GB, and its public address per hour.

resource "aws_eip" "nat" {
  count  = var.nat_gateway ? 1 : 0
  domain = "vpc"
  tags   = { Name = "${var.name}-nat" }

  depends_on = [aws_internet_gateway.main]
}

resource "aws_nat_gateway" "main" {
  count         = var.nat_gateway ? 1 : 0
  subnet_id     = aws_subnet.main["management"].id
  allocation_id = aws_eip.nat[0].id

  # NatWindow is what the dead man's switch below is allowed to delete.
  tags = { Name = "${var.name}-nat", NatWindow = var.name }

  # Without the public route the gateway stands and forwards nothing.
  depends_on = [aws_route.public_internet, aws_route_table_association.main]
}

resource "aws_route" "private_internet" {
  count                  = var.nat_gateway ? 1 : 0
  route_table_id         = aws_route_table.private.id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.main[0].id
}

# ─── Dead man's switch: at the deadline AWS deletes the gateway by itself ─────
#
# It works without the operator and without anything running. It leaves the address and a route that
# leads nowhere; closing the window clears both.

locals {
  is_leased    = var.nat_gateway_until != null
  has_deadline = local.is_leased || var.nat_gateway_max_hours > 0
  # "4h" from now, or "20261120T124000Z".
  deadline = local.is_leased ? replace(var.nat_gateway_until, "/[:-]/", "") : "${var.nat_gateway_max_hours}h"
}

resource "aws_scheduler_schedule" "nat_deadline" {
  # checkov:skip=CKV_AWS_297: all it holds is a gateway's id
  count = var.nat_gateway && local.has_deadline ? 1 : 0
  # Gateway and deadline are in the name, so that another of either means another schedule. Changed in
  # place, a gateway made anew after the switch had fired would keep a deadline that has passed, and
  # stand for ever. At most 21 + 1 + 21 + 1 + 16 of Scheduler's 64 characters.
  name        = "${var.name}-${aws_nat_gateway.main[0].id}-${local.deadline}"
  description = "Deletes ${var.name}'s NAT gateway ${local.is_leased ? "at ${var.nat_gateway_until}" : "${local.deadline} after this schedule was made"}"

  # UTC; without a lease counted from the apply that makes the schedule.
  schedule_expression = "at(${local.is_leased ? trimsuffix(var.nat_gateway_until, "Z") : formatdate("YYYY-MM-DD'T'hh:mm:ss", timeadd(timestamp(), "${var.nat_gateway_max_hours}h"))})"

  flexible_time_window {
    mode = "OFF"
  }

  # A universal target: Scheduler calls the EC2 API itself, with the role below.
  target {
    arn      = "arn:${data.aws_partition.current.partition}:scheduler:::aws-sdk:ec2:deleteNatGateway"
    role_arn = aws_iam_role.nat_deadline.arn
    input    = jsonencode({ NatGatewayId = aws_nat_gateway.main[0].id })
  }

  lifecycle {
    # timestamp() differs in every plan: the deadline is set once and no later apply moves it.
    ignore_changes = [schedule_expression]

    # The plan's time, so that a plan judged in time may still be applied.
    precondition {
      condition     = !local.is_leased || try(timecmp(var.nat_gateway_until, plantimestamp()) > 0, true)
      error_message = "The window's lease ended at ${coalesce(var.nat_gateway_until, "?")} (nat_gateway_until in nat.auto.tfvars.json). Close the window with scripts/destroy-nat.sh, or open it anew with `drawbridge nat open`."
    }
  }

  # The schedule must not exist before its role may act.
  depends_on = [aws_iam_role_policy.nat_deadline]
}

# The role stands also while the window is closed: it costs nothing, and a new role is not usable at once.
resource "aws_iam_role" "nat_deadline" {
  name        = "${var.name}-nat-deadline"
  description = "Lets EventBridge Scheduler delete the NAT gateway of ${var.name}"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "scheduler.amazonaws.com" }
      Action    = "sts:AssumeRole"
      # Scheduler names the schedule's group here, never the single schedule.
      Condition = {
        StringEquals = {
          "aws:SourceAccount" = data.aws_caller_identity.current.account_id
          "aws:SourceArn"     = "arn:${data.aws_partition.current.partition}:scheduler:${var.region}:${data.aws_caller_identity.current.account_id}:schedule-group/default"
        }
      }
    }]
  })
}

# By tag, not by id: the policy outlives each gateway, and only this deployment's carries the tag.
resource "aws_iam_role_policy" "nat_deadline" {
  name = "delete-nat-gateway"
  role = aws_iam_role.nat_deadline.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "ec2:DeleteNatGateway"
      Resource  = "arn:${data.aws_partition.current.partition}:ec2:${var.region}:${data.aws_caller_identity.current.account_id}:natgateway/*"
      Condition = { StringEquals = { "aws:ResourceTag/NatWindow" = var.name } }
    }]
  })
}
