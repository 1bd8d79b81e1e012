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
    oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"
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
}

run "the_role_may_not_rewrite_itself" {
  command = plan
  assert {
    condition     = aws_iam_role.github.path == "/github/"
    error_message = "deployer-policy.json may write the policies of roles without a path."
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

run "every_repository_of_an_owner" {
  command = plan
  variables {
    repository = "octocat/*"
  }
  expect_failures = [var.repository]
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

run "every_environment" {
  command = plan
  variables {
    environment = "*"
  }
  expect_failures = [var.environment]
}

run "a_name_that_no_deployment_has" {
  command = plan
  variables {
    name = "*"
  }
  expect_failures = [var.name]
}

run "a_zone_for_a_region" {
  command = plan
  variables {
    region = "ap-south-1a"
  }
  expect_failures = [var.region]
}

run "a_bucket_in_capitals" {
  command = plan
  variables {
    state_bucket = "States"
  }
  expect_failures = [var.state_bucket]
}

run "somebody_elses_provider" {
  command = plan
  variables {
    oidc_provider_arn = "arn:aws:iam::123456789012:oidc-provider/example.org"
  }
  expect_failures = [var.oidc_provider_arn]
}

run "the_boundary_bounds_the_role" {
  command = plan
  variables {
    permissions_boundary_arn = "arn:aws:iam::123456789012:policy/teams/boundary"
  }
  assert {
    condition     = aws_iam_role.github.permissions_boundary == "arn:aws:iam::123456789012:policy/teams/boundary"
    error_message = "The role has no boundary."
  }
}

run "a_role_for_a_boundary" {
  command = plan
  variables {
    permissions_boundary_arn = "arn:aws:iam::123456789012:role/boundary"
  }
  expect_failures = [var.permissions_boundary_arn]
}

run "the_audits_own_tag" {
  command = plan
  variables {
    tags = { Deployment = "drawbridge" }
  }
  expect_failures = [var.tags]
}
