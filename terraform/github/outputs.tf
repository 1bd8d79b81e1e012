output "role_arn" {
  description = "For the variable AWS_ROLE_ARN of the GitHub environment."
  value       = aws_iam_role.github.arn
}

output "subject" {
  description = "The one `sub` claim whose bearer may be the role."
  value       = local.subject
}

output "backend" {
  description = "The text of terraform/backend_override.tf, which keeps the state in the bucket; null without a bucket."
  value       = length(aws_s3_bucket.state) == 0 ? null : <<-TEXT
    # Where the state is. Written by `terraform -chdir=terraform/github output -raw backend`; nothing in it is secret.
    terraform {
      backend "s3" {
        bucket       = "${aws_s3_bucket.state[0].id}"
        key          = "${local.state_key}"
        region       = "${var.region}"
        encrypt      = true
        use_lockfile = true
      }
    }
  TEXT
}
