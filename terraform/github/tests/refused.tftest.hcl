# Whom the role may trust, and what is refused. No account: the provider is pretended.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
}

variables {
  repository   = "octocat/shop"
  state_bucket = "octocat-shop-states"
}

run "one_environment_of_one_repository" {
  command = plan
  variables {
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/teams/boundary"
    oidc_provider_arn        = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"
  }
  assert {
    condition = jsondecode(aws_iam_role.github.assume_role_policy).Statement[0].Condition == {
      StringEquals = {
        "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com"
        "token.actions.githubusercontent.com:sub" = "repo:octocat/shop:environment:production"
      }
    }
    error_message = "The role trusts somebody else."
  }
  assert {
    condition     = length(aws_iam_openid_connect_provider.github) == 0
    error_message = "A second provider for the same issuer cannot be made."
  }
  assert {
    condition     = aws_iam_role.github.path == "/github/"
    error_message = "deployer-policy.json may write the policies of roles without a path."
  }
  assert {
    condition     = aws_iam_role.github.permissions_boundary == "arn:aws:iam::123456789012:policy/teams/boundary"
    error_message = "The role has no boundary."
  }
}

run "without_a_bucket_there_is_only_the_role" {
  command = plan
  variables {
    state_bucket = null
  }
  assert {
    condition     = length(aws_s3_bucket.state) == 0 && length(aws_iam_role_policy.state) == 0 && output.backend == null
    error_message = "Something of the state is made."
  }
}

run "a_repository_with_ids" {
  command = plan
  variables {
    repository = "octocat@123456/shop@456789"
  }
  assert {
    condition     = output.subject == "repo:octocat@123456/shop@456789:environment:production"
    error_message = "The subject is another one."
  }
}

run "every_repository_of_an_owner_and_other_values_that_are_refused" {
  command = plan
  variables {
    repository = "octocat/*"
    # every environment
    environment = "*"
    # a name that no deployment has
    name = "*"
    # a zone for a region
    region = "ap-south-1a"
    # a bucket in capitals
    state_bucket = "States"
    # somebody else's provider
    oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/example.org"
    # a role for a boundary
    permissions_boundary_arn = "arn:aws:iam::123456789012:role/boundary"
    # the audit's own tag
    tags = { Deployment = "drawbridge" }
  }
  expect_failures = [
    var.repository,
    var.environment,
    var.name,
    var.region,
    var.state_bucket,
    var.oidc_provider_arn,
    var.permissions_boundary_arn,
    var.tags,
  ]
}

run "a_repository_by_its_beginning" {
  command = plan
  variables {
    repository = "octocat/sho?"
  }
  expect_failures = [var.repository]
}

run "a_repository_without_owner" {
  command = plan
  variables {
    repository = "shop"
  }
  expect_failures = [var.repository]
}

run "a_repository_with_more_of_the_claim" {
  command = plan
  variables {
    repository = "octocat/shop:ref:refs/heads/main"
  }
  expect_failures = [var.repository]
}

run "a_repository_as_address" {
  command = plan
  variables {
    repository = "https://github.com/octocat/shop"
  }
  expect_failures = [var.repository]
}

run "a_repository_with_one_id" {
  command = plan
  variables {
    repository = "octocat@123456/shop"
  }
  expect_failures = [var.repository]
}
