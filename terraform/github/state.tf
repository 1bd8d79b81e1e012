# ─── Where the state is, for everybody who deploys ────────────────────────────

resource "aws_s3_bucket" "state" {
  # checkov:skip=CKV_AWS_145: encrypted with the service's own key; the state holds no secret, and a key costs a dollar a month
  # checkov:skip=CKV_AWS_144: one region is enough for a state that `terraform import` can rebuild
  # checkov:skip=CKV_AWS_18: who wrote a state is in CloudTrail and in the lock; an access log wants a second bucket
  # checkov:skip=CKV2_AWS_61: old states are some 200 kB each, and what one goes back to
  # checkov:skip=CKV2_AWS_62: nobody waits for a new state
  count  = var.state_bucket == null ? 0 : 1
  bucket = var.state_bucket

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "state" {
  count  = length(aws_s3_bucket.state)
  bucket = aws_s3_bucket.state[0].id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "state" {
  count  = length(aws_s3_bucket.state)
  bucket = aws_s3_bucket.state[0].id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_ownership_controls" "state" {
  count  = length(aws_s3_bucket.state)
  bucket = aws_s3_bucket.state[0].id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "state" {
  count                   = length(aws_s3_bucket.state)
  bucket                  = aws_s3_bucket.state[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_policy" "state" {
  count  = length(aws_s3_bucket.state)
  bucket = aws_s3_bucket.state[0].id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "OnlyOverTls"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [aws_s3_bucket.state[0].arn, "${aws_s3_bucket.state[0].arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
  depends_on = [aws_s3_bucket_public_access_block.state]
}

# What terraform's s3 backend asks with `use_lockfile`. Old versions are not the role's to remove.
resource "aws_iam_role_policy" "state" {
  count = length(aws_s3_bucket.state)
  name  = "state"
  role  = aws_iam_role.github.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "FindTheState"
        Effect   = "Allow"
        Action   = ["s3:ListBucket"]
        Resource = aws_s3_bucket.state[0].arn
      },
      {
        Sid      = "ReadAndWriteTheState"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject"]
        Resource = "${aws_s3_bucket.state[0].arn}/${local.state_key}"
      },
      {
        Sid      = "Lock"
        Effect   = "Allow"
        Action   = ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
        Resource = "${aws_s3_bucket.state[0].arn}/${local.state_key}.tflock"
      },
    ]
  })
}
