# ─── Load balancer: the only way from the internet to the API ─────────────────

locals {
  # Where the API listens; the same number stands in flows.json, load_balancer to backend.
  api_port  = 8000
  http_port = 80
}

resource "aws_lb" "main" {
  name               = var.name
  load_balancer_type = "application"
  internal           = false
  subnets            = [aws_subnet.main["management"].id, aws_subnet.main["edge"].id]
  security_groups    = [aws_security_group.main["load_balancer"].id]

  # Header names a browser would never send are how requests are smuggled past a proxy.
  drop_invalid_header_fields = true

  tags = { Name = var.name }

  # Its addresses must be gone before the gateway can be detached, or the destroy hangs there.
  depends_on = [aws_internet_gateway.main]
}

resource "aws_lb_target_group" "backend" {
  name_prefix = "api-"
  vpc_id      = aws_vpc.main.id
  port        = local.api_port
  protocol    = "HTTP"
  target_type = "instance"

  # Ten seconds to notice, either way. /ready, not /health: without its database the API is no use.
  health_check {
    path                = "/ready"
    port                = "traffic-port"
    protocol            = "HTTP"
    matcher             = "200"
    interval            = 5
    timeout             = 3
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }

  # The API answers within seconds; the default of 300 would hold up every replacement.
  deregistration_delay = 30

  tags = { Name = "${var.name}-backend" }

  lifecycle {
    # A listener in use refuses that its target group goes first; hence the prefix, not a name.
    create_before_destroy = true
  }
}

resource "aws_lb_target_group_attachment" "backend" {
  target_group_arn = aws_lb_target_group.backend.arn
  target_id        = aws_instance.backend.id
  port             = local.api_port
}

resource "aws_lb_listener" "http" {
  load_balancer_arn = aws_lb.main.arn
  port              = local.http_port
  protocol          = "HTTP"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.backend.arn
  }

  tags = { Name = "${var.name}-http" }
}
