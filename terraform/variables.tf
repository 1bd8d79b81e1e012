# ─── Deployment ───────────────────────────────────────────────────────────────

variable "name" {
  type        = string
  description = "Name of this deployment: prefix of every AWS name and of the SSM parameters, e.g. \"drawbridge\". IAM names are account-wide, so it is unique in the account, not only in the region."
  default     = "drawbridge"
  nullable    = false
  validation {
    # SSM refuses paths below /aws and /ssm; ELB refuses names that begin with internal- or end with a hyphen.
    condition     = can(regex("^[a-z][a-z0-9-]{0,19}[a-z0-9]$", var.name)) && !can(regex("^(aws|ssm|internal-)", "${var.name}-"))
    error_message = "name must be 2 to 21 lower-case letters, digits or hyphens, begin with a letter, not end with a hyphen, and not begin with aws, ssm or internal-: e.g. \"drawbridge\" or \"shop-staging\"."
  }
}

variable "region" {
  type        = string
  description = "AWS region, e.g. \"ap-south-1\" (Mumbai). The images must have been published there."
  default     = "ap-south-1"
  nullable    = false
  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region must be a region code like \"ap-south-1\", not a zone or a place name."
  }
}

variable "zones" {
  type        = object({ main = string, edge = string })
  description = "Letters of the two availability zones: everything stands in `main`; `edge` only holds the load balancer's second subnet, because AWS wants two, e.g. { main = \"a\", edge = \"b\" }. Changing `main` would replace the database's volume, which Terraform refuses."
  default     = { main = "a", edge = "b" }
  nullable    = false
  validation {
    condition     = can(regex("^[a-z]$", var.zones.main)) && can(regex("^[a-z]$", var.zones.edge)) && var.zones.main != var.zones.edge
    error_message = "zones needs two different single letters, e.g. { main = \"a\", edge = \"b\" }; list yours with: aws ec2 describe-availability-zones --query AvailabilityZones[].ZoneName"
  }
}

variable "tags" {
  type        = map(string)
  description = "Tags for everything, beside Name and Deployment, at most 40, e.g. { Team = \"alumni\" }."
  default     = {}
  nullable    = false
  validation {
    # Without regard to case, as IAM compares them: there `name` beside `Name` is a duplicate.
    condition     = alltrue([for key in keys(var.tags) : !startswith(lower(key), "aws:") && !contains(["name", "deployment", "natwindow"], lower(key))])
    error_message = "tags must not use the names Name, Deployment or NatWindow (set here) in any spelling, nor begin with aws: (reserved)."
  }
  validation {
    # What EC2, ELB, IAM, SSM and CloudWatch Logs all accept; AWS allows 50 tags on a resource.
    condition = length(var.tags) <= 40 && length(distinct([for key in keys(var.tags) : lower(key)])) == length(var.tags) && alltrue([
      for key, value in var.tags :
      can(regex("^[\\p{L}\\p{N} _.:/=+@-]{1,128}$", key)) && can(regex("^[\\p{L}\\p{N} _.:/=+@-]{0,256}$", value))
    ])
    error_message = "tags are at most 40 names of 1 to 128 characters, each once in any spelling, with values of up to 256: letters, digits, spaces and _.:/=+@- only."
  }
}

# ─── Network ──────────────────────────────────────────────────────────────────

variable "vpc_cidr" {
  type        = string
  description = "IPv4 block of the VPC, /16 to /24, e.g. \"10.20.0.0/16\". Choose one that no network you will connect to uses."
  default     = "10.20.0.0/16"
  nullable    = false
  validation {
    condition     = can(cidrnetmask(var.vpc_cidr)) && try(cidrhost(var.vpc_cidr, 0) == split("/", var.vpc_cidr)[0], false) && can(regex("/(1[6-9]|2[0-4])$", var.vpc_cidr))
    error_message = "vpc_cidr must be an IPv4 block of /16 to /24 written from its first address, e.g. \"10.20.0.0/16\"."
  }
}

variable "subnet_cidrs" {
  type        = object({ management = string, backend = string, database = string, edge = string })
  description = "IPv4 blocks of the four subnets, inside vpc_cidr and apart from each other, e.g. database = \"10.20.3.0/24\"; /28 or larger, management and edge /27 or larger, because the load balancer stands in them. The database always gets the tenth address of its own."
  default = {
    management = "10.20.1.0/24"
    backend    = "10.20.2.0/24"
    database   = "10.20.3.0/24"
    edge       = "10.20.4.0/24"
  }
  nullable = false
  validation {
    condition = alltrue([
      for cidr in values(var.subnet_cidrs) :
      can(cidrnetmask(cidr)) && try(cidrhost(cidr, 0) == split("/", cidr)[0], false) && can(regex("/(1[6-9]|2[0-8])$", cidr))
    ])
    error_message = "subnet_cidrs needs four IPv4 blocks of /16 to /28, each written from its first address, e.g. \"10.20.1.0/24\"."
  }
  validation {
    # https://docs.aws.amazon.com/elasticloadbalancing/latest/application/application-load-balancers.html#availability-zones
    condition     = !endswith(var.subnet_cidrs.management, "/28") && !endswith(var.subnet_cidrs.edge, "/28")
    error_message = "subnet_cidrs.management and .edge hold the load balancer, which needs at least a /27 in each."
  }
  validation {
    # A block lies in the VPC when its first address, cut to the VPC's length, is the VPC's own.
    condition = alltrue([
      for cidr in values(var.subnet_cidrs) :
      try(cidrhost("${split("/", cidr)[0]}/${split("/", var.vpc_cidr)[1]}", 0) == cidrhost(var.vpc_cidr, 0), false)
    ])
    error_message = "Every block of subnet_cidrs must lie inside vpc_cidr (${var.vpc_cidr}): when one changes, change the other."
  }
  validation {
    # Two blocks overlap exactly when, both cut to the shorter length, they are the same block.
    condition = alltrue(flatten([
      for index, one in values(var.subnet_cidrs) : [
        for other in slice(values(var.subnet_cidrs), index + 1, 4) : try(
          length(distinct([
            for cidr in [one, other] :
            cidrhost("${split("/", cidr)[0]}/${min(split("/", one)[1], split("/", other)[1])}", 0)
          ])) == 2,
          false
        )
      ]
    ]))
    error_message = "The blocks of subnet_cidrs must not overlap: ${join(", ", [for name, cidr in var.subnet_cidrs : "${name} ${cidr}"])}. Two of /24 that differ in the third number never do."
  }
}

variable "admin_cidrs" {
  type        = set(string)
  description = "IPv4 blocks that may reach the bastion's port 22, e.g. [\"203.0.113.7/32\"]. No default: somebody decides."
  nullable    = false
  validation {
    # AWS stores 203.0.113.7/24 as 203.0.113.0/24, and every later plan would want it back.
    condition = length(var.admin_cidrs) > 0 && alltrue([
      for cidr in var.admin_cidrs :
      can(cidrnetmask(cidr)) && try(cidrhost(cidr, 0) == split("/", cidr)[0], false) && try(tonumber(split("/", cidr)[1]) >= 8, false)
    ])
    error_message = "admin_cidrs needs at least one IPv4 block, written from its first address and no wider than /8 (never 0.0.0.0/0). One address is x.x.x.x/32; yours: curl -4 https://checkip.amazonaws.com"
  }
}

# ─── Machines ─────────────────────────────────────────────────────────────────

variable "admin_ssh_keys" {
  type        = map(string)
  description = "OpenSSH public keys that may sign in on every host, as admin and as tunnel, by person: { alice = \"ssh-ed25519 AAAA… alice@laptop\" }. A change reaches a host when it stops and starts, which the apply does."
  nullable    = false
  validation {
    condition     = length(var.admin_ssh_keys) > 0
    error_message = "admin_ssh_keys needs at least one person's public key, e.g. { alice = \"ssh-ed25519 AAAA… alice@laptop\" }; without one nobody can sign in."
  }
  # Whether each is a public key is checked in bastion.tf: a refusal here prints the line of the
  # variables file that holds the value, and what was pasted may be a private key.
}

variable "tunnel_ssh_keys" {
  type        = map(string)
  description = "OpenSSH public keys that may only forward: they sign in as tunnel, get no shell and no command on any host, and reach Postgres and the API through the bastion. By person or machine, as in admin_ssh_keys, whose keys may do this anyway: { reporting = \"ssh-ed25519 AAAA… reporting@ci\" }."
  nullable    = false
  default     = {}
  # Checked in bastion.tf, for the reason above.
}

variable "images" {
  type        = object({ bastion = string, backend = string, database = string })
  description = "AMI id per role, e.g. { bastion = \"ami-0123456789abcdef0\", … }. Kept in images.auto.tfvars.json; the README says how to publish images. Another id replaces that machine, and nothing else does."
  nullable    = false
  validation {
    condition     = alltrue([for id in values(var.images) : can(regex("^ami-[0-9a-f]{8,17}$", id))])
    error_message = "images needs an AMI id (ami- and 8 to 17 hex digits) for bastion, backend and database: publish them as the README says and write them to images.auto.tfvars.json."
  }
}

variable "image_owners" {
  type        = set(string)
  description = "Whose images `images` may name, for the comparison with the instance types: \"self\" and 12-digit account numbers, e.g. [\"self\", \"123456789012\"] where another account of yours publishes them."
  default     = ["self"]
  nullable    = false
  validation {
    condition     = length(var.image_owners) > 0 && alltrue([for owner in var.image_owners : can(regex("^(self|[0-9]{12})$", owner))])
    error_message = "image_owners needs \"self\", 12-digit account numbers, or both, e.g. [\"self\"]."
  }
}

variable "instance_types" {
  type        = object({ bastion = string, backend = string, database = string })
  description = "EC2 instance type per role, e.g. \"t3.micro\". Its processor must be that of the role's image, which is checked: t3 for x86_64, t4g for arm64. A change stops and starts the machine."
  default     = { bastion = "t3.micro", backend = "t3.micro", database = "t3.micro" }
  nullable    = false
  validation {
    condition     = alltrue([for type in values(var.instance_types) : can(regex("^[a-z0-9-]+\\.[a-z0-9-]+$", type))])
    error_message = "instance_types needs types like \"t3.micro\" for bastion, backend and database."
  }
}

variable "root_volume_gib" {
  type        = number
  description = "Size in GiB of each host's root disk, 4 to 1000, e.g. 8. At least the size of the image."
  default     = 8
  nullable    = false
  validation {
    condition     = var.root_volume_gib >= 4 && var.root_volume_gib <= 1000 && floor(var.root_volume_gib) == var.root_volume_gib
    error_message = "root_volume_gib must be a whole number of GiB from 4 to 1000."
  }
}

variable "database_volume_gib" {
  type        = number
  description = "Size in GiB of the database's own volume, 1 to 16384, e.g. 10. It can grow later and never shrink. The volume outlives its instance, and `terraform destroy` refuses to take it: scripts/destroy.sh."
  default     = 10
  nullable    = false
  validation {
    condition     = var.database_volume_gib >= 1 && var.database_volume_gib <= 16384 && floor(var.database_volume_gib) == var.database_volume_gib
    error_message = "database_volume_gib must be a whole number of GiB from 1 to 16384."
  }
}

# ─── Load balancer ────────────────────────────────────────────────────────────

variable "certificate_arn" {
  type        = string
  description = "ARN of an ACM certificate for `domain`, issued in this region, e.g. \"arn:aws:acm:ap-south-1:123456789012:certificate/8a1f…\". With it the load balancer speaks TLS on port 443 and port 80 only redirects there. null = plain HTTP, and every plan warns."
  default     = null
  validation {
    condition     = var.certificate_arn == null || can(regex("^arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/[A-Za-z0-9-]+$", var.certificate_arn))
    error_message = "certificate_arn must be the ARN of an ACM certificate, arn:aws:acm:REGION:ACCOUNT:certificate/ID, or null; list yours with: aws acm list-certificates"
  }
  validation {
    condition     = try(split(":", var.certificate_arn)[3] == var.region, true)
    error_message = "certificate_arn is of the region ${try(split(":", var.certificate_arn)[3], "?")}, and a load balancer takes certificates of its own region only: request one in ${var.region}."
  }
}

variable "domain" {
  type        = string
  description = "Name under which people reach the API, e.g. \"api.example.org\"; the certificate must be for it. Given exactly when certificate_arn is. The output dns_record says what to enter in its DNS."
  default     = null
  validation {
    condition     = var.domain == null || can(regex("^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])$", var.domain))
    error_message = "domain must be a full lower-case host name such as \"api.example.org\", without https:// and without a path, or null."
  }
  validation {
    condition     = (var.domain == null) == (var.certificate_arn == null)
    error_message = "domain and certificate_arn belong together: give both for HTTPS, or neither."
  }
}

variable "health_check_path" {
  type        = string
  description = "Path that answers 200 while the backend can serve, e.g. \"/ready\"; the load balancer asks it every 5 seconds."
  default     = "/ready"
  nullable    = false
  validation {
    condition     = can(regex("^/[A-Za-z0-9_.~!$&'()*+,;=:@%/?-]*$", var.health_check_path)) && length(var.health_check_path) <= 1024
    error_message = "health_check_path must begin with a slash and be at most 1024 characters of a URL's path, e.g. \"/ready\"."
  }
}

# ─── Watching ─────────────────────────────────────────────────────────────────

variable "flow_log_retention_days" {
  type        = number
  description = "Days for which CloudWatch Logs keeps a log of the VPC's connections, e.g. 30; 0 = no log is made. CloudWatch charges per GB taken in."
  default     = 0
  nullable    = false
  validation {
    # https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html
    condition     = contains([0, 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.flow_log_retention_days)
    error_message = "flow_log_retention_days must be 0 for no log, or a number of days that CloudWatch Logs offers: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288 or 3653."
  }
}

# ─── NAT window ───────────────────────────────────────────────────────────────

variable "nat_gateway" {
  type        = bool
  description = "Whether the NAT gateway stands: true while hosts bootstrap, false otherwise. The position is kept in nat.auto.tfvars.json, so that no later apply moves it by surprise."
  nullable    = false
}

variable "nat_gateway_max_hours" {
  type        = number
  description = "Hours after which AWS itself deletes the NAT gateway should nobody close the window, 1 to 168, e.g. 4; 0 = never. A change counts from the apply that brings it. nat_gateway_until, when given, takes its place."
  default     = 4
  nullable    = false
  validation {
    condition     = var.nat_gateway_max_hours >= 0 && var.nat_gateway_max_hours <= 168 && floor(var.nat_gateway_max_hours) == var.nat_gateway_max_hours
    error_message = "nat_gateway_max_hours must be a whole number of hours from 1 to 168, or 0 for no deadline."
  }
}

variable "nat_gateway_until" {
  type        = string
  description = "When AWS itself deletes the NAT gateway: the deadline of a lease opened with `drawbridge nat open --for`, which keeps it in nat.auto.tfvars.json. UTC, whole seconds, e.g. \"2026-11-20T12:40:00Z\". Overrides nat_gateway_max_hours; null = that counts."
  default     = null
  validation {
    # timeadd knows the calendar: there is no 30 February.
    condition     = var.nat_gateway_until == null || (can(regex("^[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z$", var.nat_gateway_until)) && can(timeadd(var.nat_gateway_until, "0s")))
    error_message = "nat_gateway_until must be a time in UTC to the second, e.g. \"2026-11-20T12:40:00Z\", or null; `drawbridge nat open --for` writes it."
  }
  # Whether it has passed is checked in nat.tf: a lease that ended must stand in the way of neither
  # closing the window nor destroying everything.
}
