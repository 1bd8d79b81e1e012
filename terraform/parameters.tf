# ─── What the hosts publish ───────────────────────────────────────────────────
#
# The hosts overwrite these. They are created here all the same, so that `terraform destroy` removes
# them and a host's role can name them exactly. `value_wo` is sent once and never read back: what a
# host writes later, the password above all, does not enter the state. `pending` = not reported yet.

resource "aws_ssm_parameter" "bootstrap_report" {
  # checkov:skip=CKV2_AWS_34: meant to be read by everybody in the account who may read parameters: nothing secret is in it
  for_each         = toset(local.machines)
  name             = "/${var.name}/hosts/${each.key}/bootstrap"
  description      = "How far the first boot of the ${each.key} has come, JSON; written by the host"
  type             = "String"
  value_wo         = "pending"
  value_wo_version = 1
}

resource "aws_ssm_parameter" "ssh_host_key" {
  # checkov:skip=CKV2_AWS_34: meant to be read by everybody in the account who may read parameters: nothing secret is in it
  for_each         = toset(local.machines)
  name             = "/${var.name}/hosts/${each.key}/ssh-host-key"
  description      = "SSH host public key of the ${each.key}, one line; written by the host, pinned by the operator"
  type             = "String"
  value_wo         = "pending"
  value_wo_version = 1
}

# Under the account's own aws/ssm key, whose policy lets whoever may read the parameter decrypt it:
# no KMS permission and no key to pay for.
resource "aws_ssm_parameter" "database_login" {
  # checkov:skip=CKV_AWS_337: the account's own aws/ssm key, for the reasons above
  name             = "/${var.name}/database/login"
  description      = "How the API logs in to the database, JSON; born on the database host, sealed by the backend"
  type             = "SecureString"
  value_wo         = "pending"
  value_wo_version = 1
}

resource "aws_ssm_parameter" "database_certificate" {
  # checkov:skip=CKV2_AWS_34: meant to be read by everybody in the account who may read parameters: nothing secret is in it
  name             = "/${var.name}/database/certificate"
  description      = "TLS certificate of the database, PEM; written by the host, pinned by the backend"
  type             = "String"
  value_wo         = "pending"
  value_wo_version = 1
}
