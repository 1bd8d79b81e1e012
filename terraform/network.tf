# ─── Network: one VPC, two public and two private subnets ─────────────────────

locals {
  zone = { for use, letter in var.zones : use => "${var.region}${letter}" }

  subnets = {
    management = { zone = local.zone.main, public = true }
    backend    = { zone = local.zone.main, public = false }
    database   = { zone = local.zone.main, public = false }
    edge       = { zone = local.zone.edge, public = true }
  }
}

resource "aws_vpc" "main" {
  cidr_block = var.vpc_cidr
  tags       = { Name = var.name }
}

resource "aws_subnet" "main" {
  for_each          = local.subnets
  vpc_id            = aws_vpc.main.id
  cidr_block        = var.subnet_cidrs[each.key]
  availability_zone = each.value.zone
  # No public address by itself, not even in the public subnets: the bastion has an Elastic IP.
  map_public_ip_on_launch = false
  tags                    = { Name = "${var.name}-${each.key}" }
}

resource "aws_internet_gateway" "main" {
  vpc_id = aws_vpc.main.id
  tags   = { Name = var.name }
}

# ─── Routes ───────────────────────────────────────────────────────────────────

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.main.id
  tags   = { Name = "${var.name}-public" }
}

resource "aws_route" "public_internet" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.main.id
}

# Its way out is the separate route in nat.tf. Written inline here, the table would depend on the
# gateway, and removing the gateway would take the table and its associations along.
resource "aws_route_table" "private" {
  vpc_id = aws_vpc.main.id
  tags   = { Name = "${var.name}-private" }
}

resource "aws_route_table_association" "main" {
  for_each       = local.subnets
  subnet_id      = aws_subnet.main[each.key].id
  route_table_id = each.value.public ? aws_route_table.public.id : aws_route_table.private.id
}

# Free, and it stays when the NAT gateway goes. That makes it a way out too, so it leads to this
# account's buckets only: nobody can carry data to a bucket of their own.
resource "aws_vpc_endpoint" "s3" {
  vpc_id            = aws_vpc.main.id
  service_name      = "com.amazonaws.${var.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [aws_route_table.private.id]
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = "*"
      Action    = "s3:*"
      Resource  = "*"
      Condition = { StringEquals = { "aws:ResourceAccount" = data.aws_caller_identity.current.account_id } }
    }]
  })
  tags = { Name = "${var.name}-s3" }
}
