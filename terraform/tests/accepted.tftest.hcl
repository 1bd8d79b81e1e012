# What the plan holds: one run for the defaults and some for the features. No account: the provider is pretended.

mock_provider "aws" {
  mock_data "aws_ec2_instance_type" {
    defaults = { supported_architectures = ["x86_64"] }
  }
}

override_data {
  target = data.aws_ami_ids.of_architecture["x86_64"]
  values = { ids = ["ami-0123456789abcdef0", "ami-0123456789abcdef1", "ami-0123456789abcdef2"] }
}

override_data {
  target = data.aws_ami_ids.of_architecture["arm64"]
  values = { ids = [] }
}

variables {
  admin_cidrs    = ["203.0.113.7/32"]
  admin_ssh_keys = { alice = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx0hGm7dZ1s8dVYhVb1uWq0yq3P2m9c1r5mJ0m7vX3d alice@laptop" }
  images         = { bastion = "ami-0123456789abcdef0", backend = "ami-0123456789abcdef1", database = "ami-0123456789abcdef2" }
  nat_gateway    = true
}

run "defaults_open_the_window_and_warn_about_plain_http" {
  command         = plan
  expect_failures = [check.traffic_is_encrypted]
  assert {
    condition     = length(aws_nat_gateway.main) == 1 && length(aws_eip.nat) == 1 && length(aws_route.private_internet) == 1 && length(aws_scheduler_schedule.nat_deadline) == 1
    error_message = "The window is gateway, address, route and schedule."
  }
  assert {
    condition     = aws_lb_listener.http.default_action[0].type == "forward" && length(aws_lb_listener.https) == 0
    error_message = "Without a certificate port 80 serves."
  }
  assert {
    condition     = !contains(keys(aws_vpc_security_group_ingress_rule.from_outside), "internet-to-load_balancer-443 0.0.0.0/0")
    error_message = "Without a certificate port 443 is closed."
  }
  assert {
    condition     = aws_lb_target_group.backend.port == 8000 && aws_lb_target_group.backend.health_check[0].path == "/ready"
    error_message = "The API's port is that of the flow to the backend."
  }
  assert {
    condition     = length(aws_flow_log.vpc) == 0 && output.dns_record == null
    error_message = "Neither a flow log nor a DNS record unless asked for."
  }
  assert {
    condition     = jsondecode(base64decode(aws_instance.bastion.user_data_base64)).tunnel_keys == []
    error_message = "The hosts want the field, empty or not."
  }
}

run "a_closed_window_has_none_of_its_four_resources" {
  command = plan
  variables {
    # A lease that ended does not stand in the way of closing.
    nat_gateway_until = "2001-01-01T00:00:00Z"
    nat_gateway       = false
  }
  expect_failures = [check.traffic_is_encrypted]
  assert {
    condition     = length(aws_nat_gateway.main) + length(aws_eip.nat) + length(aws_route.private_internet) + length(aws_scheduler_schedule.nat_deadline) == 0
    error_message = "Something of the window is left."
  }
  assert {
    condition     = output.deployment.nat_gateway == null
    error_message = "The output still names a gateway."
  }
}

run "a_window_without_deadline_has_no_schedule" {
  command = plan
  variables {
    nat_gateway_max_hours = 0
  }
  expect_failures = [check.traffic_is_encrypted]
  assert {
    condition     = length(aws_nat_gateway.main) == 1 && length(aws_scheduler_schedule.nat_deadline) == 0
    error_message = "0 hours means no deadline."
  }
}

run "a_lease_sets_the_deadline_whatever_the_hours_say" {
  command = plan
  variables {
    nat_gateway_max_hours = 0
    nat_gateway_until     = "2999-02-28T12:40:00Z"
  }
  expect_failures = [check.traffic_is_encrypted]
  assert {
    condition     = aws_scheduler_schedule.nat_deadline[0].schedule_expression == "at(2999-02-28T12:40:00)"
    error_message = "Scheduler wants the lease's end without its Z."
  }
}

run "a_certificate_makes_https_and_a_redirect_and_another_health_path_is_asked_and_told" {
  command = plan
  variables {
    health_check_path = "/healthz?deep=1"
    certificate_arn   = "arn:aws:acm:ap-south-1:123456789012:certificate/12345678-90ab-cdef-1234-567890abcdef"
    domain            = "api.example.org"
  }
  assert {
    condition     = aws_lb_listener.https[0].port == 443 && aws_lb_listener.https[0].protocol == "HTTPS" && aws_lb_listener.https[0].ssl_policy == "ELBSecurityPolicy-TLS13-1-2-2021-06"
    error_message = "The HTTPS listener is not what it should be."
  }
  assert {
    condition = aws_lb_listener.http.default_action[0].type == "redirect" && alltrue([
      for redirect in aws_lb_listener.http.default_action[0].redirect :
      redirect.protocol == "HTTPS" && redirect.port == "443" && redirect.status_code == "HTTP_301"
    ])
    error_message = "Port 80 does not redirect to HTTPS."
  }
  assert {
    condition     = contains(keys(aws_vpc_security_group_ingress_rule.from_outside), "internet-to-load_balancer-443 0.0.0.0/0")
    error_message = "Port 443 is closed."
  }
  assert {
    condition     = output.docs_url == "https://api.example.org/docs"
    error_message = "The output does not lead to the domain."
  }
  assert {
    condition     = aws_lb_target_group.backend.health_check[0].path == "/healthz?deep=1" && output.deployment.load_balancer.ready_url == "https://api.example.org/healthz?deep=1"
    error_message = "The load balancer and the output disagree on the health path."
  }
}

run "arm64_images_run_on_arm64_types" {
  command = plan
  variables {
    instance_types = { bastion = "t4g.nano", backend = "t4g.micro", database = "t4g.micro" }
  }
  override_data {
    target = data.aws_ec2_instance_type.chosen
    values = { supported_architectures = ["arm64"] }
  }
  override_data {
    target = data.aws_ami_ids.of_architecture["x86_64"]
    values = { ids = [] }
  }
  override_data {
    target = data.aws_ami_ids.of_architecture["arm64"]
    values = { ids = ["ami-0123456789abcdef0", "ami-0123456789abcdef1", "ami-0123456789abcdef2"] }
  }
  expect_failures = [check.traffic_is_encrypted]
  assert {
    condition     = aws_instance.backend.instance_type == "t4g.micro"
    error_message = "The type was not taken."
  }
}

run "an_image_that_is_gone_is_a_warning" {
  command = plan
  override_data {
    target = data.aws_ami_ids.of_architecture["x86_64"]
    values = { ids = ["ami-0123456789abcdef0", "ami-0123456789abcdef1"] }
  }
  expect_failures = [check.traffic_is_encrypted, check.images_exist]
}

run "keys_a_flow_log_and_the_smallest_network" {
  command = plan
  variables {
    admin_ssh_keys = {
      zoe   = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg="
      alice = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx0hGm7dZ1s8dVYhVb1uWq0yq3P2m9c1r5mJ0m7vX3d alice@laptop"
    }
    tunnel_ssh_keys = {
      reporting = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0hQUfnGVXl+vU0Rr2Yl1mY5sVmJ2bJ2wF4l0dXo9aB reporting@ci"
      bob       = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx0hGm7dZ1s8dVYhVb1uWq0yq3P2m9c1r5mJ0m7vX3d bob@laptop"
    }
    flow_log_retention_days = 30
    vpc_cidr                = "10.9.8.0/24"
    subnet_cidrs            = { management = "10.9.8.0/27", edge = "10.9.8.32/27", backend = "10.9.8.64/28", database = "10.9.8.80/28" }
  }
  expect_failures = [check.traffic_is_encrypted]
  assert {
    condition     = [for key in jsondecode(base64decode(aws_instance.bastion.user_data_base64)).admin_keys : split(" ", key)[0]] == ["ssh-ed25519", "ecdsa-sha2-nistp256"]
    error_message = "Not both keys, or not by name."
  }
  assert {
    condition     = alltrue([for host in [aws_instance.bastion, aws_instance.backend] : [for key in jsondecode(base64decode(host.user_data_base64)).tunnel_keys : split(" ", key)[2]] == ["bob@laptop", "reporting@ci"]])
    error_message = "Not both keys on each host, or not by name."
  }
  assert {
    condition     = length(jsondecode(base64decode(aws_instance.bastion.user_data_base64)).admin_keys) == 2
    error_message = "A key that may only forward has become an administrator's."
  }
  assert {
    condition     = aws_cloudwatch_log_group.flow_log[0].name == "/drawbridge/vpc-flow-log" && aws_cloudwatch_log_group.flow_log[0].retention_in_days == 30 && aws_flow_log.vpc[0].traffic_type == "ALL"
    error_message = "The flow log is not what was asked for."
  }
  assert {
    condition     = aws_instance.database.private_ip == "10.9.8.90"
    error_message = "The database has the tenth address of its block."
  }
}
