# ─── Versions and provider ────────────────────────────────────────────────────

terraform {
  # 1.11 is the first release with write-only arguments, which keep what the hosts put into
  # SSM out of the state (parameters.tf).
  required_version = ">= 1.11"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = merge(var.tags, { Deployment = var.name })
  }
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}
