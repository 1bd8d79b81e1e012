# ─── Who may talk to whom: flows.json, and nothing else ───────────────────────

locals {
  # What has a security group of its own. `admins` and `internet` are ends outside of the VPC.
  guarded  = ["load_balancer", "bastion", "backend", "database"]
  machines = ["bastion", "backend", "database"]

  outside = {
    admins   = var.admin_cidrs
    internet = toset(["0.0.0.0/0"])
  }

  flow_list   = jsondecode(file("${path.module}/flows.json"))
  may_begin   = concat(local.guarded, keys(local.outside))
  may_end     = local.guarded
  flow_shapes = ["from port to why", "from needs port to why"]

  # What a flow may need in order to exist, and whether it is there.
  needs = { certificate = local.has_certificate }

  # An entry that is not right is left out here and named by terraform_data.flows below: the plan
  # fails with one text instead of one error per rule. Two entries of one key meet in one list.
  listed_flows = {
    for flow in local.flow_list : "${flow.from}-to-${flow.to}-${flow.port}" => flow...
    if try(
      contains(local.may_begin, flow.from) && contains(local.may_end, flow.to) && length(flow.why) > 0 &&
      floor(flow.port) == flow.port && flow.port >= 1 && flow.port <= 65535 &&
      contains(concat([""], keys(local.needs)), try(flow.needs, "")),
      false
    )
  }
  flows = { for key, flow in local.listed_flows : key => flow if try(local.needs[flow[0].needs], true) }

  # Where the API listens, which load_balancer.tf asks: port 1 stands in while the list is being refused.
  api_ports = [for key, flow in local.listed_flows : flow[0].port if flow[0].from == "load_balancer" && flow[0].to == "backend"]
  api_port  = try(local.api_ports[0], 1)

  # Outside ends have no group to refer to: one rule per address block.
  from_outside = merge([
    for key, flow in local.flows : {
      for cidr in lookup(local.outside, flow[0].from, []) : "${key} ${cidr}" => merge(flow[0], { cidr = cidr })
    }
  ]...)
  from_inside = { for key, flow in local.flows : key => flow[0] if contains(local.guarded, flow[0].from) }
}

# Holds nothing of use: it is where flows.json is checked before anything is made of it.
resource "terraform_data" "flows" {
  input = sort(keys(local.flows))

  # One mistake, one text: a field that is missing is named by the first check only.
  lifecycle {
    precondition {
      condition = alltrue([for flow in local.flow_list : try(contains(local.flow_shapes, join(" ", sort(keys(flow)))), false)])
      error_message = "flows.json: every entry is an object of exactly from, port, to and why, and needs where it does not always exist; change ${join("; ", [
        for flow in local.flow_list : jsonencode(flow) if !try(contains(local.flow_shapes, join(" ", sort(keys(flow)))), false)
      ])}."
    }
    precondition {
      condition = alltrue([
        for flow in local.flow_list : try(contains(local.may_begin, flow.from) && contains(local.may_end, flow.to), true)
      ])
      error_message = "flows.json: unknown host ${join(", ", distinct(concat(
        [for flow in local.flow_list : "${flow.from} (from)" if !try(contains(local.may_begin, flow.from), true)],
        [for flow in local.flow_list : "${flow.to} (to)" if !try(contains(local.may_end, flow.to), true)],
      )))}. A flow comes from ${join(", ", local.may_begin)} and goes to ${join(", ", local.may_end)}."
    }
    precondition {
      condition = alltrue([
        for flow in local.flow_list : !can(flow.port) || try(floor(flow.port) == flow.port && flow.port >= 1 && flow.port <= 65535, false)
      ])
      error_message = "flows.json: port is a whole number from 1 to 65535, not ${join(", ", [
        for flow in local.flow_list : jsonencode(try(flow.port, null))
        if can(flow.port) && !try(floor(flow.port) == flow.port && flow.port >= 1 && flow.port <= 65535, false)
      ])}."
    }
    precondition {
      condition     = alltrue([for flow in values(local.listed_flows) : length(flow) == 1])
      error_message = "flows.json: listed more than once: ${join(", ", [for key, flow in local.listed_flows : key if length(flow) > 1])}. Keep one entry of each."
    }
    precondition {
      condition = alltrue([for flow in local.flow_list : !can(flow.needs) || try(contains(keys(local.needs), flow.needs), false)])
      error_message = "flows.json: needs is \"certificate\" (the flow exists only with certificate_arn), not ${join(", ", [
        for flow in local.flow_list : jsonencode(try(flow.needs, null))
        if can(flow.needs) && !try(contains(keys(local.needs), flow.needs), false)
      ])}. Leave the field out for a flow that always exists."
    }
    precondition {
      # Counted as written: an entry with another mistake is named for that alone.
      condition     = length(distinct([for flow in local.flow_list : jsonencode(try(flow.port, null)) if try(flow.from == "load_balancer" && flow.to == "backend", false)])) == 1
      error_message = "flows.json: the port of the flow from load_balancer to backend is where the API listens, so there must be exactly one such flow. Add it, or remove all but one."
    }
    precondition {
      # It becomes the rules' description, and EC2 takes no other characters there.
      condition = alltrue([for flow in local.flow_list : !can(flow.why) || can(regex("^[a-zA-Z0-9 ._:/()#,@+=&;{}!$*-]{1,200}$", flow.why))])
      error_message = "flows.json: why is 1 to 200 characters of a-z A-Z 0-9 space and ._:/()#,@+=&;{}!$*- only; change ${join("; ", [
        for flow in local.flow_list : "\"${try(flow.why, "")}\""
        if can(flow.why) && !can(regex("^[a-zA-Z0-9 ._:/()#,@+=&;{}!$*-]{1,200}$", flow.why))
      ])}."
    }
  }
}

# ─── Groups ───────────────────────────────────────────────────────────────────

# Every VPC has it and it cannot be deleted. Emptied, so that whatever lands in it can talk to nobody.
resource "aws_default_security_group" "closed" {
  vpc_id = aws_vpc.main.id
  tags   = { Name = "${var.name}-default-closed" }
}

resource "aws_security_group" "main" {
  for_each    = toset(local.guarded)
  vpc_id      = aws_vpc.main.id
  name        = "${var.name}-${replace(each.key, "_", "-")}"
  description = "${var.name} ${replace(each.key, "_", " ")}: rules from flows.json"
  tags        = { Name = "${var.name}-${replace(each.key, "_", "-")}" }
}

# ─── Rules: each flow once at its end and, when it begins inside, once at its beginning ───

resource "aws_vpc_security_group_ingress_rule" "from_outside" {
  for_each          = local.from_outside
  security_group_id = aws_security_group.main[each.value.to].id
  description       = each.value.why
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
  tags              = { Name = each.key }
}

resource "aws_vpc_security_group_ingress_rule" "from_inside" {
  for_each                     = local.from_inside
  security_group_id            = aws_security_group.main[each.value.to].id
  description                  = each.value.why
  referenced_security_group_id = aws_security_group.main[each.value.from].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  tags                         = { Name = each.key }
}

resource "aws_vpc_security_group_egress_rule" "to_inside" {
  for_each                     = local.from_inside
  security_group_id            = aws_security_group.main[each.value.from].id
  description                  = each.value.why
  referenced_security_group_id = aws_security_group.main[each.value.to].id
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  tags                         = { Name = each.key }
}

# For the AWS API during first boot. On the private hosts it leads nowhere once the window is closed.
resource "aws_vpc_security_group_egress_rule" "bootstrap" {
  for_each          = toset(local.machines)
  security_group_id = aws_security_group.main[each.key].id
  description       = "AWS API during first boot"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  tags              = { Name = "${each.key}-bootstrap" }
}
