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

# Terraform tells every variable that is refused in one plan, so each run below tries one bad value of several variables.

run "values_that_are_refused_one" {
  command = plan
  variables {
    # every subnet is outside of it
    vpc_cidr = "10.99.0.0/16"
    # capitals
    name = "Drawbridge"
    # one without an id
    images = { bastion = "ami-0123456789abcdef0", backend = "", database = "ami-0123456789abcdef2" }
    # no ARN
    certificate_arn = "12345678-90ab-cdef-1234-567890abcdef"
    # without a slash
    health_check_path = "ready"
  }
  expect_failures = [
    var.subnet_cidrs,
    var.name,
    var.images,
    var.certificate_arn,
    var.health_check_path,
  ]
}

run "values_that_are_refused_two" {
  command = plan
  variables {
    # one outside of the VPC
    subnet_cidrs = { management = "10.20.1.0/24", backend = "10.20.2.0/24", database = "10.21.3.0/24", edge = "10.20.4.0/24" }
    # one letter
    name = "d"
    # one by name
    images = { bastion = "ami-0123456789abcdef0", backend = "drawbridge-backend", database = "ami-0123456789abcdef2" }
    # of IAM
    certificate_arn = "arn:aws:iam::123456789012:server-certificate/mine"
    # with a space
    health_check_path = "/are you ready"
  }
  expect_failures = [
    var.subnet_cidrs,
    var.name,
    var.images,
    var.certificate_arn,
    var.health_check_path,
  ]
}

run "values_that_are_refused_three" {
  command = plan
  variables {
    # as wide as two VPCs
    vpc_cidr = "10.20.0.0/24"
    # too long for the schedule
    name = "abcdefghijklmnopqrstuv"
    # set here
    tags = { Deployment = "mine" }
    # without a size
    instance_types = { bastion = "t3.micro", backend = "t3", database = "t3.micro" }
    # of another region
    certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/12345678-90ab-cdef-1234-567890abcdef"
    # CloudWatch does not offer it
    flow_log_retention_days = 31
  }
  expect_failures = [
    var.subnet_cidrs,
    var.name,
    var.tags,
    var.instance_types,
    var.certificate_arn,
    var.flow_log_retention_days,
  ]
}

run "values_that_are_refused_four" {
  command = plan
  variables {
    # two that are the same
    subnet_cidrs = { management = "10.20.1.0/24", backend = "10.20.2.0/24", database = "10.20.2.0/24", edge = "10.20.4.0/24" }
    # ends with a hyphen
    name = "shop-"
    # set here, in another spelling
    tags = { natwindow = "mine" }
    # holds no image
    root_volume_gib = 3
    # none for the certificate
    domain = null
    # below nothing
    flow_log_retention_days = -1
  }
  expect_failures = [
    var.subnet_cidrs,
    var.name,
    var.tags,
    var.root_volume_gib,
    var.domain,
    var.flow_log_retention_days,
  ]
}

run "values_that_are_refused_five" {
  command = plan
  variables {
    # one inside another
    subnet_cidrs = { management = "10.20.1.0/24", backend = "10.20.2.0/24", database = "10.20.2.128/25", edge = "10.20.4.0/24" }
    # SSM reserves it
    name = "aws-shop"
    # AWS reserves it
    tags = { "AWS:team" = "alumni" }
    # everywhere
    admin_cidrs = ["0.0.0.0/0"]
    # in parts
    root_volume_gib = 8.5
    # a URL
    domain = "https://api.example.org"
    # in parts
    nat_gateway_max_hours = 1.5
  }
  expect_failures = [
    var.subnet_cidrs,
    var.name,
    var.tags,
    var.admin_cidrs,
    var.root_volume_gib,
    var.domain,
    var.nat_gateway_max_hours,
  ]
}

run "values_that_are_refused_six" {
  command = plan
  variables {
    # one around another
    subnet_cidrs = { management = "10.20.1.0/24", backend = "10.20.2.0/24", database = "10.20.3.0/24", edge = "10.20.0.0/22" }
    # ELB reserves it
    name = "internal-shop"
    # differ in spelling only
    tags = { Team = "alumni", team = "alumni" }
    # half of everywhere
    admin_cidrs = ["203.0.113.7/32", "128.0.0.0/1"]
    # too large
    root_volume_gib = 1001
    # without a dot
    domain = "api"
    # beyond a week
    nat_gateway_max_hours = 169
  }
  expect_failures = [
    var.subnet_cidrs,
    var.name,
    var.tags,
    var.admin_cidrs,
    var.root_volume_gib,
    var.domain,
    var.nat_gateway_max_hours,
  ]
}

run "values_that_are_refused_seven" {
  command = plan
  variables {
    # one not from its first address
    subnet_cidrs = { management = "10.20.1.0/24", backend = "10.20.2.0/24", database = "10.20.3.1/24", edge = "10.20.4.0/24" }
    # equal
    zones = { main = "a", edge = "a" }
    # characters that AWS refuses
    tags = { Team = "<alumni>" }
    # nowhere
    admin_cidrs = []
    # nothing
    database_volume_gib = 0
    # none for the domain
    certificate_arn = null
    # below nothing
    nat_gateway_max_hours = -1
  }
  expect_failures = [
    var.subnet_cidrs,
    var.zones,
    var.tags,
    var.admin_cidrs,
    var.database_volume_gib,
    var.domain,
    check.traffic_is_encrypted,
    var.nat_gateway_max_hours,
  ]
}

run "values_that_are_refused_eight" {
  command = plan
  variables {
    # one that is too small
    subnet_cidrs = { management = "10.20.1.0/24", backend = "10.20.2.0/24", database = "10.20.3.0/29", edge = "10.20.4.0/24" }
    # with the region
    zones = { main = "ap-south-1a", edge = "ap-south-1b" }
    # no name
    tags = { "" = "alumni" }
    # a name
    admin_cidrs = ["office.example.org"]
    # in parts
    database_volume_gib = 10.5
    # another zone
    nat_gateway_until = "2999-01-01T00:00:00+05:30"
  }
  expect_failures = [
    var.subnet_cidrs,
    var.zones,
    var.tags,
    var.admin_cidrs,
    var.database_volume_gib,
    var.nat_gateway_until,
  ]
}

run "values_that_are_refused_nine" {
  command = plan
  variables {
    # one too small for the load balancer
    subnet_cidrs = { management = "10.20.1.0/24", backend = "10.20.2.0/24", database = "10.20.3.0/24", edge = "10.20.4.0/28" }
    # not from the first address
    admin_cidrs = ["203.0.113.7/24"]
    # by alias
    image_owners = ["amazon"]
    # beyond gp3
    database_volume_gib = 16385
    # parts of seconds
    nat_gateway_until = "2999-01-01T00:00:00.5Z"
  }
  expect_failures = [
    var.subnet_cidrs,
    var.admin_cidrs,
    var.image_owners,
    var.database_volume_gib,
    var.nat_gateway_until,
  ]
}

run "values_that_are_refused_ten" {
  command = plan
  variables {
    # too wide
    vpc_cidr = "10.0.0.0/8"
    # of nobody
    admin_ssh_keys = {}
    # nobody
    image_owners = []
    # no such day
    nat_gateway_until = "2999-02-30T00:00:00Z"
  }
  expect_failures = [
    var.vpc_cidr,
    var.admin_ssh_keys,
    var.image_owners,
    var.nat_gateway_until,
  ]
}

run "values_that_are_refused_eleven" {
  command = plan
  variables {
    # not from its first address
    vpc_cidr = "10.20.0.1/16"
    # a zone
    region = "ap-south-1a"
    # a length
    nat_gateway_until = "30m"
  }
  expect_failures = [
    var.vpc_cidr,
    var.region,
    var.nat_gateway_until,
  ]
}

run "values_that_are_refused_twelve" {
  command = plan
  variables {
    # IPv6
    vpc_cidr = "fd00::/16"
    # a place
    region = "Mumbai"
    # malformed, though the window is closed
    nat_gateway_until = "soon"
    nat_gateway       = false
  }
  expect_failures = [
    var.vpc_cidr,
    var.region,
    var.nat_gateway_until,
  ]
}

# Refused while the plan is made, each by one precondition: one at a time.

run "private_key_and_a_lease_that_ended" {
  command = plan
  variables {
    nat_gateway_until = "2001-01-01T00:00:00Z"
    admin_ssh_keys    = { mallory = "-----BEGIN OPENSSH PRIVATE KEY-----\nbm90IGEga2V5" }
  }
  expect_failures = [aws_instance.bastion, aws_scheduler_schedule.nat_deadline]
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
