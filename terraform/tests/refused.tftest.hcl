# What the plan refuses: every rule of variables.tf and every precondition that a variable can break. What flows.json
# can break, and what a refusal says, is in the Rust tests beside these.

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

  # With a certificate, so that the one warning there is does not count as a second failure.
  certificate_arn = "arn:aws:acm:ap-south-1:123456789012:certificate/12345678-90ab-cdef-1234-567890abcdef"
  domain          = "api.example.org"
}

run "name_in_capitals" {
  command = plan
  variables {
    name = "Drawbridge"
  }
  expect_failures = [var.name]
}

run "name_of_one_letter" {
  command = plan
  variables {
    name = "d"
  }
  expect_failures = [var.name]
}

run "name_too_long_for_the_schedule" {
  command = plan
  variables {
    name = "abcdefghijklmnopqrstuv"
  }
  expect_failures = [var.name]
}

run "name_that_ends_with_a_hyphen" {
  command = plan
  variables {
    name = "shop-"
  }
  expect_failures = [var.name]
}

run "name_that_ssm_reserves" {
  command = plan
  variables {
    name = "aws-shop"
  }
  expect_failures = [var.name]
}

run "name_that_elb_reserves" {
  command = plan
  variables {
    name = "internal-shop"
  }
  expect_failures = [var.name]
}

run "region_that_is_a_zone" {
  command = plan
  variables {
    region = "ap-south-1a"
  }
  expect_failures = [var.region]
}

run "region_that_is_a_place" {
  command = plan
  variables {
    region = "Mumbai"
  }
  expect_failures = [var.region]
}

run "zones_that_are_equal" {
  command = plan
  variables {
    zones = { main = "a", edge = "a" }
  }
  expect_failures = [var.zones]
}

run "zones_with_the_region" {
  command = plan
  variables {
    zones = { main = "ap-south-1a", edge = "ap-south-1b" }
  }
  expect_failures = [var.zones]
}

run "tags_that_are_set_here" {
  command = plan
  variables {
    tags = { Deployment = "mine" }
  }
  expect_failures = [var.tags]
}

run "tags_that_are_set_here_in_another_spelling" {
  command = plan
  variables {
    tags = { natwindow = "mine" }
  }
  expect_failures = [var.tags]
}

run "tags_that_aws_reserves" {
  command = plan
  variables {
    tags = { "AWS:team" = "alumni" }
  }
  expect_failures = [var.tags]
}

run "tags_that_differ_in_spelling_only" {
  command = plan
  variables {
    tags = { Team = "alumni", team = "alumni" }
  }
  expect_failures = [var.tags]
}

run "tags_with_characters_that_aws_refuses" {
  command = plan
  variables {
    tags = { Team = "<alumni>" }
  }
  expect_failures = [var.tags]
}

run "tags_without_a_name" {
  command = plan
  variables {
    tags = { "" = "alumni" }
  }
  expect_failures = [var.tags]
}

run "vpc_that_is_too_wide" {
  command = plan
  variables {
    vpc_cidr = "10.0.0.0/8"
  }
  expect_failures = [var.vpc_cidr]
}

run "vpc_not_from_its_first_address" {
  command = plan
  variables {
    vpc_cidr = "10.20.0.1/16"
  }
  expect_failures = [var.vpc_cidr]
}

run "vpc_that_is_ipv6" {
  command = plan
  variables {
    vpc_cidr = "fd00::/16"
  }
  expect_failures = [var.vpc_cidr]
}

run "subnets_outside_of_the_vpc" {
  command = plan
  variables {
    vpc_cidr = "10.99.0.0/16"
  }
  expect_failures = [var.subnet_cidrs]
}

run "subnet_outside_of_the_vpc" {
  command = plan
  variables {
    subnet_cidrs = { management = "10.20.1.0/24", backend = "10.20.2.0/24", database = "10.21.3.0/24", edge = "10.20.4.0/24" }
  }
  expect_failures = [var.subnet_cidrs]
}

run "subnet_as_wide_as_two_vpcs" {
  command = plan
  variables {
    vpc_cidr = "10.20.0.0/24"
  }
  expect_failures = [var.subnet_cidrs]
}

run "subnets_that_are_the_same" {
  command = plan
  variables {
    subnet_cidrs = { management = "10.20.1.0/24", backend = "10.20.2.0/24", database = "10.20.2.0/24", edge = "10.20.4.0/24" }
  }
  expect_failures = [var.subnet_cidrs]
}

run "subnet_inside_another" {
  command = plan
  variables {
    subnet_cidrs = { management = "10.20.1.0/24", backend = "10.20.2.0/24", database = "10.20.2.128/25", edge = "10.20.4.0/24" }
  }
  expect_failures = [var.subnet_cidrs]
}

run "subnet_around_another" {
  command = plan
  variables {
    subnet_cidrs = { management = "10.20.1.0/24", backend = "10.20.2.0/24", database = "10.20.3.0/24", edge = "10.20.0.0/22" }
  }
  expect_failures = [var.subnet_cidrs]
}

run "subnet_not_from_its_first_address" {
  command = plan
  variables {
    subnet_cidrs = { management = "10.20.1.0/24", backend = "10.20.2.0/24", database = "10.20.3.1/24", edge = "10.20.4.0/24" }
  }
  expect_failures = [var.subnet_cidrs]
}

run "subnet_that_is_too_small" {
  command = plan
  variables {
    subnet_cidrs = { management = "10.20.1.0/24", backend = "10.20.2.0/24", database = "10.20.3.0/29", edge = "10.20.4.0/24" }
  }
  expect_failures = [var.subnet_cidrs]
}

run "subnet_too_small_for_the_load_balancer" {
  command = plan
  variables {
    subnet_cidrs = { management = "10.20.1.0/24", backend = "10.20.2.0/24", database = "10.20.3.0/24", edge = "10.20.4.0/28" }
  }
  expect_failures = [var.subnet_cidrs]
}

run "admins_from_everywhere" {
  command = plan
  variables {
    admin_cidrs = ["0.0.0.0/0"]
  }
  expect_failures = [var.admin_cidrs]
}

run "admins_from_half_of_everywhere" {
  command = plan
  variables {
    admin_cidrs = ["203.0.113.7/32", "128.0.0.0/1"]
  }
  expect_failures = [var.admin_cidrs]
}

run "admins_from_nowhere" {
  command = plan
  variables {
    admin_cidrs = []
  }
  expect_failures = [var.admin_cidrs]
}

run "admins_from_a_name" {
  command = plan
  variables {
    admin_cidrs = ["office.example.org"]
  }
  expect_failures = [var.admin_cidrs]
}

run "admins_not_from_the_first_address" {
  command = plan
  variables {
    admin_cidrs = ["203.0.113.7/24"]
  }
  expect_failures = [var.admin_cidrs]
}

run "keys_of_nobody" {
  command = plan
  variables {
    admin_ssh_keys = {}
  }
  expect_failures = [var.admin_ssh_keys]
}

run "private_key" {
  command = plan
  variables {
    admin_ssh_keys = { mallory = "-----BEGIN OPENSSH PRIVATE KEY-----\nbm90IGEga2V5" }
  }
  expect_failures = [aws_instance.bastion]
}

run "private_key_beside_a_good_one" {
  command = plan
  variables {
    admin_ssh_keys = {
      alice   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx0hGm7dZ1s8dVYhVb1uWq0yq3P2m9c1r5mJ0m7vX3d"
      mallory = "-----BEGIN OPENSSH PRIVATE KEY-----\nbm90IGEga2V5"
    }
  }
  expect_failures = [aws_instance.bastion]
}

run "key_with_options" {
  command = plan
  variables {
    admin_ssh_keys = { mallory = "command=\"sh\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx0hGm7dZ1s8dVYhVb1uWq0yq3P2m9c1r5mJ0m7vX3d" }
  }
  expect_failures = [aws_instance.bastion]
}

run "keys_that_do_not_fit_into_user_data" {
  command = plan
  variables {
    admin_ssh_keys = { alice = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx0hGm7dZ1s8dVYhVb1uWq0yq3P2m9c1r5mJ0m7vX3d ${format("%012000d", 0)}" }
  }
  expect_failures = [aws_instance.bastion]
}

run "private_key_that_may_only_forward" {
  command = plan
  variables {
    tunnel_ssh_keys = { mallory = "-----BEGIN OPENSSH PRIVATE KEY-----\nbm90IGEga2V5" }
  }
  expect_failures = [aws_instance.bastion]
}

run "key_that_may_only_forward_with_options" {
  command = plan
  variables {
    tunnel_ssh_keys = { mallory = "permitopen=\"*:*\" ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx0hGm7dZ1s8dVYhVb1uWq0yq3P2m9c1r5mJ0m7vX3d" }
  }
  expect_failures = [aws_instance.bastion]
}

run "keys_of_both_kinds_that_do_not_fit_into_user_data_together" {
  command = plan
  variables {
    admin_ssh_keys  = { alice = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx0hGm7dZ1s8dVYhVb1uWq0yq3P2m9c1r5mJ0m7vX3d ${format("%06000d", 0)}" }
    tunnel_ssh_keys = { bob = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJx0hGm7dZ1s8dVYhVb1uWq0yq3P2m9c1r5mJ0m7vX3d ${format("%06000d", 0)}" }
  }
  expect_failures = [aws_instance.bastion]
}

run "images_without_an_id" {
  command = plan
  variables {
    images = { bastion = "ami-0123456789abcdef0", backend = "", database = "ami-0123456789abcdef2" }
  }
  expect_failures = [var.images]
}

run "image_by_name" {
  command = plan
  variables {
    images = { bastion = "ami-0123456789abcdef0", backend = "drawbridge-backend", database = "ami-0123456789abcdef2" }
  }
  expect_failures = [var.images]
}

run "image_owner_by_alias" {
  command = plan
  variables {
    image_owners = ["amazon"]
  }
  expect_failures = [var.image_owners]
}

run "images_of_nobody" {
  command = plan
  variables {
    image_owners = []
  }
  expect_failures = [var.image_owners]
}

run "instance_type_without_a_size" {
  command = plan
  variables {
    instance_types = { bastion = "t3.micro", backend = "t3", database = "t3.micro" }
  }
  expect_failures = [var.instance_types]
}

run "arm64_type_for_an_x86_64_image" {
  command = plan
  variables {
    instance_types = { bastion = "t3.micro", backend = "t4g.micro", database = "t3.micro" }
  }
  override_data {
    target = data.aws_ec2_instance_type.chosen["t4g.micro"]
    values = { supported_architectures = ["arm64"] }
  }
  expect_failures = [data.aws_ec2_instance_type.chosen]
}

run "x86_64_type_for_an_arm64_image" {
  command = plan
  override_data {
    target = data.aws_ami_ids.of_architecture["x86_64"]
    values = { ids = ["ami-0123456789abcdef0", "ami-0123456789abcdef1"] }
  }
  override_data {
    target = data.aws_ami_ids.of_architecture["arm64"]
    values = { ids = ["ami-0123456789abcdef2"] }
  }
  expect_failures = [data.aws_ec2_instance_type.chosen]
}

run "root_volume_that_holds_no_image" {
  command = plan
  variables {
    root_volume_gib = 3
  }
  expect_failures = [var.root_volume_gib]
}

run "root_volume_in_parts" {
  command = plan
  variables {
    root_volume_gib = 8.5
  }
  expect_failures = [var.root_volume_gib]
}

run "root_volume_that_is_too_large" {
  command = plan
  variables {
    root_volume_gib = 1001
  }
  expect_failures = [var.root_volume_gib]
}

run "database_volume_of_nothing" {
  command = plan
  variables {
    database_volume_gib = 0
  }
  expect_failures = [var.database_volume_gib]
}

run "database_volume_in_parts" {
  command = plan
  variables {
    database_volume_gib = 10.5
  }
  expect_failures = [var.database_volume_gib]
}

run "database_volume_beyond_gp3" {
  command = plan
  variables {
    database_volume_gib = 16385
  }
  expect_failures = [var.database_volume_gib]
}

run "certificate_that_is_no_arn" {
  command = plan
  variables {
    certificate_arn = "12345678-90ab-cdef-1234-567890abcdef"
  }
  expect_failures = [var.certificate_arn]
}

run "certificate_of_iam" {
  command = plan
  variables {
    certificate_arn = "arn:aws:iam::123456789012:server-certificate/mine"
  }
  expect_failures = [var.certificate_arn]
}

run "certificate_of_another_region" {
  command = plan
  variables {
    certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/12345678-90ab-cdef-1234-567890abcdef"
  }
  expect_failures = [var.certificate_arn]
}

run "certificate_without_a_domain" {
  command = plan
  variables {
    domain = null
  }
  expect_failures = [var.domain]
}

run "domain_without_a_certificate" {
  command = plan
  variables {
    certificate_arn = null
  }
  expect_failures = [var.domain, check.traffic_is_encrypted]
}

run "domain_that_is_a_url" {
  command = plan
  variables {
    domain = "https://api.example.org"
  }
  expect_failures = [var.domain]
}

run "domain_without_a_dot" {
  command = plan
  variables {
    domain = "api"
  }
  expect_failures = [var.domain]
}

run "health_path_without_a_slash" {
  command = plan
  variables {
    health_check_path = "ready"
  }
  expect_failures = [var.health_check_path]
}

run "health_path_with_a_space" {
  command = plan
  variables {
    health_check_path = "/are you ready"
  }
  expect_failures = [var.health_check_path]
}

run "retention_that_cloudwatch_does_not_offer" {
  command = plan
  variables {
    flow_log_retention_days = 31
  }
  expect_failures = [var.flow_log_retention_days]
}

run "retention_below_nothing" {
  command = plan
  variables {
    flow_log_retention_days = -1
  }
  expect_failures = [var.flow_log_retention_days]
}

run "hours_in_parts" {
  command = plan
  variables {
    nat_gateway_max_hours = 1.5
  }
  expect_failures = [var.nat_gateway_max_hours]
}

run "hours_beyond_a_week" {
  command = plan
  variables {
    nat_gateway_max_hours = 169
  }
  expect_failures = [var.nat_gateway_max_hours]
}

run "hours_below_nothing" {
  command = plan
  variables {
    nat_gateway_max_hours = -1
  }
  expect_failures = [var.nat_gateway_max_hours]
}

run "lease_with_another_zone" {
  command = plan
  variables {
    nat_gateway_until = "2999-01-01T00:00:00+05:30"
  }
  expect_failures = [var.nat_gateway_until]
}

run "lease_with_parts_of_seconds" {
  command = plan
  variables {
    nat_gateway_until = "2999-01-01T00:00:00.5Z"
  }
  expect_failures = [var.nat_gateway_until]
}

run "lease_until_a_day_that_does_not_exist" {
  command = plan
  variables {
    nat_gateway_until = "2999-02-30T00:00:00Z"
  }
  expect_failures = [var.nat_gateway_until]
}

run "lease_that_is_a_length" {
  command = plan
  variables {
    nat_gateway_until = "30m"
  }
  expect_failures = [var.nat_gateway_until]
}

run "malformed_lease_though_the_window_is_closed" {
  command = plan
  variables {
    nat_gateway       = false
    nat_gateway_until = "soon"
  }
  expect_failures = [var.nat_gateway_until]
}

run "lease_that_ended" {
  command = plan
  variables {
    nat_gateway_until = "2001-01-01T00:00:00Z"
  }
  expect_failures = [aws_scheduler_schedule.nat_deadline]
}

