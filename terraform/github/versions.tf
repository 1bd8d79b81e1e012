# What GitHub Actions needs in AWS before it can deploy: a role without keys, and a bucket for the shared state. Applied
# once, by hand, by somebody who may make roles; terraform/ itself works without any of it.
#
#   terraform -chdir=terraform/github init
#   terraform -chdir=terraform/github apply -var repository=octocat/shop -var state_bucket=octocat-shop-states
#   terraform -chdir=terraform/github output -raw backend >terraform/backend_override.tf
#
# Its own state stays in this folder. Losing it costs nothing but a few imports.

terraform {
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }
}

# No tag `Deployment`: what carries it and is not in the deployment's state is a finding of `drawbridge audit`.
provider "aws" {
  region = var.region

  default_tags {
    tags = var.tags
  }
}

data "aws_caller_identity" "current" {}
