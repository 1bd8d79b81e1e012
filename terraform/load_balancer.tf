# ─── Load balancer: the only way from the internet to the API ─────────────────

locals {
  has_certificate = var.certificate_arn != null
  http_port       = 80
  https_port      = 443
  # Where people find the API, without a slash at the end.
  public_url = local.has_certificate ? "https://${var.domain}" : "http://${aws_lb.main.dns_name}"
}

resource "aws_lb" "main" {
  # checkov:skip=CKV_AWS_150: it holds no data, and a destroy has to end
  # checkov:skip=CKV_AWS_91: the API logs every request; an access log wants a bucket, which outlives a destroy
  # checkov:skip=CKV2_AWS_28: a firewall costs more per month than the bastion; the API bounds size, time and rows by itself
  # checkov:skip=CKV2_AWS_20: with a certificate it redirects, without one every plan warns
  name               = var.name
  load_balancer_type = "application"
  internal           = false
  subnets            = [aws_subnet.main["management"].id, aws_subnet.main["edge"].id]
  security_groups    = [aws_security_group.main["load_balancer"].id]

  # Seconds, on both sides. The API keeps an idle connection longer (http.keep_alive_seconds), so that none ends just as a
  # request is sent on it, which would be answered 502.
  idle_timeout = 60

  # Header names a browser would never send are how requests are smuggled past a proxy.
  drop_invalid_header_fields = true

  tags = { Name = var.name }

  # Its addresses must be gone before the gateway can be detached, or the destroy hangs there.
  depends_on = [aws_internet_gateway.main]
}

resource "aws_lb_target_group" "backend" {
  # checkov:skip=CKV_AWS_378: TLS ends at the load balancer; the last hop stays in the VPC, on a port that only it reaches
  name_prefix = "api-"
  vpc_id      = aws_vpc.main.id
  port        = local.api_port
  protocol    = "HTTP"
  target_type = "instance"

  # Ten seconds to notice, either way.
  health_check {
    path                = var.health_check_path
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

# Without a certificate it serves; with one it only sends browsers to the listener below.
resource "aws_lb_listener" "http" {
  # checkov:skip=CKV_AWS_2: with a certificate it only redirects, in a dynamic block that checkov does not look into
  load_balancer_arn = aws_lb.main.arn
  port              = local.http_port
  protocol          = "HTTP"

  default_action {
    type             = local.has_certificate ? "redirect" : "forward"
    target_group_arn = local.has_certificate ? null : aws_lb_target_group.backend.arn

    # By way of the listener itself, so that nobody is sent there before it stands.
    dynamic "redirect" {
      for_each = aws_lb_listener.https
      content {
        protocol    = "HTTPS"
        port        = redirect.value.port
        status_code = "HTTP_301"
      }
    }
  }

  tags = { Name = "${var.name}-http" }
}

resource "aws_lb_listener" "https" {
  count             = local.has_certificate ? 1 : 0
  load_balancer_arn = aws_lb.main.arn
  port              = local.https_port
  protocol          = "HTTPS"
  certificate_arn   = var.certificate_arn
  # TLS 1.2 and 1.3 with forward secrecy: AWS's recommendation, and what every browser since 2016 speaks.
  ssl_policy = "ELBSecurityPolicy-TLS13-1-2-2021-06"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.backend.arn
  }

  tags = { Name = "${var.name}-https" }
}

check "traffic_is_encrypted" {
  assert {
    condition     = local.has_certificate
    error_message = "Without certificate_arn and domain the API is served over plain HTTP: whatever people send and receive can be read on the way. Give both before anybody signs in."
  }
}
