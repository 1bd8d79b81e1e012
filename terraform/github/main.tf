# ─── Who may deploy: the jobs of one environment of one repository ────────────

locals {
  issuer    = "token.actions.githubusercontent.com"
  audience  = "sts.amazonaws.com"
  subject   = "repo:${var.repository}:environment:${var.environment}"
  state_key = "${var.name}/terraform.tfstate"

  # The placeholders of the policies beside terraform/.
  placeholders = { ACCOUNT = data.aws_caller_identity.current.account_id, REGION = var.region, NAME = var.name }
  policies = {
    for role in ["deployer", "publisher"] : role => replace(replace(replace(
      file("${path.module}/../${role}-policy.json"),
      "ACCOUNT", local.placeholders.ACCOUNT), "REGION", local.placeholders.REGION), "NAME", local.placeholders.NAME
    )
  }
}

# AWS checks GitHub's certificate against its own list of authorities, so no thumbprint is given.
resource "aws_iam_openid_connect_provider" "github" {
  count          = var.oidc_provider_arn == null ? 1 : 0
  url            = "https://${local.issuer}"
  client_id_list = [local.audience]
}

# The path keeps it out of reach of every deployer-policy.json, which may rewrite roles `role/NAME-*`: it must not
# rewrite itself.
resource "aws_iam_role" "github" {
  name                 = "github-${var.name}"
  path                 = "/github/"
  description          = "Publishes images and deploys ${var.name} from ${local.subject}"
  permissions_boundary = var.permissions_boundary_arn
  # A deploy with a slow apply, a slow bootstrap and the close outlasts the usual hour.
  max_session_duration = 7200
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Federated = var.oidc_provider_arn == null ? aws_iam_openid_connect_provider.github[0].arn : var.oidc_provider_arn }
      Action    = "sts:AssumeRoleWithWebIdentity"
      Condition = {
        StringEquals = {
          "${local.issuer}:aud" = local.audience
          "${local.issuer}:sub" = local.subject
        }
      }
    }]
  })
}

resource "aws_iam_policy" "github" {
  for_each    = local.policies
  name        = "github-${var.name}-${each.key}"
  description = "terraform/${each.key}-policy.json, filled in for ${var.name}"
  # Written anew without white space: IAM takes 6144 characters.
  policy = jsonencode(jsondecode(each.value))
}

resource "aws_iam_role_policy_attachment" "github" {
  for_each   = aws_iam_policy.github
  role       = aws_iam_role.github.name
  policy_arn = each.value.arn
}
