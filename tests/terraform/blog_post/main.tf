# Drawbridge's topology as blog posts write it: one resource after the other, the NAT gateway and its address made
# unconditionally, to be taken away with `terraform destroy -target=aws_nat_gateway.nat -target=aws_eip.nat`.
# tests/terraform/blog_post.rs adds routes_inline.tf or routes_separate.tf and measures what that takes along.
#
# No instance waits for the way out (depends_on) as Drawbridge's do: -target would destroy those too.

terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }
}

variable "name" {
  type        = string
  description = "Prefix of the names that must differ between deployments, e.g. \"post\"."
}

variable "image" {
  type        = string
  description = "AMI id of all three instances."
}

provider "aws" {
  region = "ap-south-1"
}

# ─── Network ──────────────────────────────────────────────────────────────────

resource "aws_vpc" "main" {
  cidr_block = "10.20.0.0/16"
}

resource "aws_internet_gateway" "main" {
  vpc_id = aws_vpc.main.id
}

resource "aws_subnet" "management" {
  vpc_id            = aws_vpc.main.id
  cidr_block        = "10.20.1.0/24"
  availability_zone = "ap-south-1a"
}

resource "aws_subnet" "backend" {
  vpc_id            = aws_vpc.main.id
  cidr_block        = "10.20.2.0/24"
  availability_zone = "ap-south-1a"
}

resource "aws_subnet" "database" {
  vpc_id            = aws_vpc.main.id
  cidr_block        = "10.20.3.0/24"
  availability_zone = "ap-south-1a"
}

resource "aws_subnet" "edge" {
  vpc_id            = aws_vpc.main.id
  cidr_block        = "10.20.4.0/24"
  availability_zone = "ap-south-1b"
}

resource "aws_route_table_association" "management" {
  subnet_id      = aws_subnet.management.id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table_association" "edge" {
  subnet_id      = aws_subnet.edge.id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table_association" "backend" {
  subnet_id      = aws_subnet.backend.id
  route_table_id = aws_route_table.private.id
}

resource "aws_route_table_association" "database" {
  subnet_id      = aws_subnet.database.id
  route_table_id = aws_route_table.private.id
}

resource "aws_vpc_endpoint" "s3" {
  vpc_id          = aws_vpc.main.id
  service_name    = "com.amazonaws.ap-south-1.s3"
  route_table_ids = [aws_route_table.private.id]
}

resource "aws_eip" "nat" {
  domain = "vpc"
}

resource "aws_nat_gateway" "nat" {
  subnet_id     = aws_subnet.management.id
  allocation_id = aws_eip.nat.id
  depends_on    = [aws_internet_gateway.main]
}

# ─── Security groups ──────────────────────────────────────────────────────────

resource "aws_security_group" "load_balancer" {
  name   = "${var.name}-load-balancer"
  vpc_id = aws_vpc.main.id

  ingress {
    from_port   = 80
    to_port     = 80
    protocol    = "tcp"
    cidr_blocks = ["0.0.0.0/0"]
  }

  egress {
    from_port   = 8000
    to_port     = 8000
    protocol    = "tcp"
    cidr_blocks = [aws_subnet.backend.cidr_block]
  }
}

resource "aws_security_group" "bastion" {
  name   = "${var.name}-bastion"
  vpc_id = aws_vpc.main.id

  ingress {
    from_port   = 22
    to_port     = 22
    protocol    = "tcp"
    cidr_blocks = ["203.0.113.0/24"]
  }

  egress {
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_security_group" "backend" {
  name   = "${var.name}-backend"
  vpc_id = aws_vpc.main.id

  ingress {
    from_port       = 8000
    to_port         = 8000
    protocol        = "tcp"
    security_groups = [aws_security_group.load_balancer.id]
  }

  ingress {
    from_port       = 22
    to_port         = 22
    protocol        = "tcp"
    security_groups = [aws_security_group.bastion.id]
  }

  egress {
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_security_group" "database" {
  name   = "${var.name}-database"
  vpc_id = aws_vpc.main.id

  ingress {
    from_port       = 5432
    to_port         = 5432
    protocol        = "tcp"
    security_groups = [aws_security_group.backend.id]
  }

  ingress {
    from_port       = 22
    to_port         = 22
    protocol        = "tcp"
    security_groups = [aws_security_group.bastion.id]
  }

  egress {
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

# ─── Machines ─────────────────────────────────────────────────────────────────

resource "aws_instance" "bastion" {
  ami                    = var.image
  instance_type          = "t3.micro"
  subnet_id              = aws_subnet.management.id
  vpc_security_group_ids = [aws_security_group.bastion.id]

  root_block_device {
    volume_size = 8
  }
}

resource "aws_eip" "bastion" {
  domain     = "vpc"
  depends_on = [aws_internet_gateway.main]
}

resource "aws_eip_association" "bastion" {
  allocation_id = aws_eip.bastion.id
  instance_id   = aws_instance.bastion.id
}

resource "aws_instance" "backend" {
  ami                    = var.image
  instance_type          = "t3.micro"
  subnet_id              = aws_subnet.backend.id
  vpc_security_group_ids = [aws_security_group.backend.id]

  root_block_device {
    volume_size = 8
  }
}

resource "aws_instance" "database" {
  ami                    = var.image
  instance_type          = "t3.micro"
  subnet_id              = aws_subnet.database.id
  vpc_security_group_ids = [aws_security_group.database.id]

  root_block_device {
    volume_size = 8
  }
}

resource "aws_ebs_volume" "database" {
  availability_zone = "ap-south-1a"
  size              = 10
}

resource "aws_volume_attachment" "database" {
  instance_id = aws_instance.database.id
  volume_id   = aws_ebs_volume.database.id
  device_name = "/dev/sdf"
}

# ─── Load balancer ────────────────────────────────────────────────────────────

resource "aws_lb" "main" {
  name               = var.name
  load_balancer_type = "application"
  subnets            = [aws_subnet.management.id, aws_subnet.edge.id]
  security_groups    = [aws_security_group.load_balancer.id]
  depends_on         = [aws_internet_gateway.main]
}

resource "aws_lb_target_group" "backend" {
  name     = var.name
  vpc_id   = aws_vpc.main.id
  port     = 8000
  protocol = "HTTP"

  health_check {
    path = "/ready"
  }
}

resource "aws_lb_target_group_attachment" "backend" {
  target_group_arn = aws_lb_target_group.backend.arn
  target_id        = aws_instance.backend.id
  port             = 8000
}

resource "aws_lb_listener" "http" {
  load_balancer_arn = aws_lb.main.arn
  port              = 80
  protocol          = "HTTP"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.backend.arn
  }
}
