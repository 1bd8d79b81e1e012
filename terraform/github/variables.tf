variable "repository" {
  type        = string
  description = "The one GitHub repository that may deploy: \"owner/name\". For a repository made or renamed after 18 June 2026, or one that has immutable subject claims switched on, with the ids: \"owner@123456/name@456789\" (Settings, Actions, OIDC shows them, or `gh api repos/OWNER/NAME --jq '.owner.id, .id'`)."
  nullable    = false
  validation {
    # Names as GitHub allows them; no `*` and no `?`, and no `:`, which ends this part of the claim.
    condition     = can(regex("^[A-Za-z0-9](-?[A-Za-z0-9])*(@[0-9]+)?/[A-Za-z0-9._-]+(@[0-9]+)?$", var.repository))
    error_message = "repository must be one repository as \"owner/name\", or \"owner@123456/name@456789\" with the ids of both, never a pattern."
  }
  validation {
    condition     = length(regexall("@", var.repository)) != 1
    error_message = "repository must have both ids, \"owner@123456/name@456789\", or none."
  }
}

variable "environment" {
  type        = string
  description = "The GitHub environment whose jobs may deploy; its rules (reviewers, branches) say who may start them. The workflows name `production`."
  default     = "production"
  nullable    = false
  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$", var.environment))
    error_message = "environment must be the name of one GitHub environment of letters, digits, dots, hyphens and underscores, e.g. \"production\", never a pattern."
  }
}

variable "name" {
  type        = string
  description = "The deployment: `name` of terraform/. The role may work on this one only."
  default     = "drawbridge"
  nullable    = false
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,19}[a-z0-9]$", var.name))
    error_message = "name must be the name of the deployment: 2 to 21 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen."
  }
}

variable "region" {
  type        = string
  description = "The deployment's AWS region: `region` of terraform/. The state bucket is there too."
  default     = "ap-south-1"
  nullable    = false
  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region must be an AWS region such as \"ap-south-1\"."
  }
}

variable "state_bucket" {
  type        = string
  description = "Name of the S3 bucket to make for the shared state, unique in all of AWS: 3 to 63 lower-case letters, digits and hyphens. Null = none is made; a runner cannot deploy without a shared state."
  default     = null
  validation {
    condition     = var.state_bucket == null || can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.state_bucket))
    error_message = "state_bucket must be 3 to 63 lower-case letters, digits and hyphens, e.g. \"octocat-shop-states\", or null."
  }
}

variable "oidc_provider_arn" {
  type        = string
  description = "The account's provider for token.actions.githubusercontent.com, if it has one already: an account can have only one. Null = it is made here."
  default     = null
  validation {
    condition     = var.oidc_provider_arn == null || can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:oidc-provider/token\\.actions\\.githubusercontent\\.com$", var.oidc_provider_arn))
    error_message = "oidc_provider_arn must be the ARN of GitHub's provider, \"arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com\", or null."
  }
}

variable "permissions_boundary_arn" {
  type        = string
  description = "A policy that bounds what the role may do, where the account asks for one; it must allow what deployer-policy.json and publisher-policy.json name. It does not bound the roles which that role makes. Null = none."
  default     = null
  validation {
    condition     = var.permissions_boundary_arn == null || can(regex("^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/[A-Za-z0-9+=,.@_/-]+$", var.permissions_boundary_arn))
    error_message = "permissions_boundary_arn must be the ARN of a policy, \"arn:aws:iam::123456789012:policy/boundary\", or null."
  }
}

variable "tags" {
  type        = map(string)
  description = "Tags for all of it, e.g. { Team = \"shop\" }."
  default     = {}
  nullable    = false
  validation {
    condition     = !contains(keys(var.tags), "Deployment")
    error_message = "tags must not hold Deployment: `drawbridge audit` would take what carries it for something left over."
  }
}
