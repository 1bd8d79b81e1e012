# ─── Deployment ───────────────────────────────────────────────────────────────

variable "name" {
  type        = string
  description = "Name of this deployment: prefix of every AWS name and of the SSM parameters, e.g. \"drawbridge\". IAM names are account-wide, so it is unique in the account, not only in the region."
  default     = "drawbridge"
  nullable    = false
  validation {
    # SSM refuses paths below /aws and /ssm; ELB refuses names that begin with internal-.
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.name)) && !can(regex("^(aws|ssm|internal-)", "${var.name}-"))
    error_message = "name must be 2 to 21 lower-case letters, digits or hyphens, begin with a letter, and not begin with aws, ssm or internal-: e.g. \"drawbridge\" or \"shop-staging\"."
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
  description = "Letters of the two availability zones: everything stands in `main`; `edge` only holds the load balancer's second subnet, because AWS wants two, e.g. { main = \"a\", edge = \"b\" }. Changing `main` replaces the database's volume."
  default     = { main = "a", edge = "b" }
  nullable    = false
  validation {
    condition     = can(regex("^[a-z]$", var.zones.main)) && can(regex("^[a-z]$", var.zones.edge)) && var.zones.main != var.zones.edge
    error_message = "zones needs two different single letters, e.g. { main = \"a\", edge = \"b\" }; list yours with: aws ec2 describe-availability-zones --query AvailabilityZones[].ZoneName"
  }
}

variable "tags" {
  type        = map(string)
  description = "Tags for everything, beside Name and Deployment, e.g. { Team = \"alumni\" }."
  default     = {}
  nullable    = false
  validation {
    condition     = alltrue([for key in keys(var.tags) : !startswith(lower(key), "aws:") && !contains(["Name", "Deployment", "NatWindow"], key)])
    error_message = "tags must not use the names Name, Deployment or NatWindow (set here), nor begin with aws: (reserved)."
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
  description = "IPv4 blocks of the four subnets, /28 or larger, inside vpc_cidr, e.g. database = \"10.20.3.0/24\". The database always gets the tenth address of its own."
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
    ]) && length(distinct(values(var.subnet_cidrs))) == 4
    error_message = "subnet_cidrs needs four different IPv4 blocks of /16 to /28, each written from its first address, e.g. \"10.20.1.0/24\"."
  }
  validation {
    # A block lies in the VPC when its first address, cut to the VPC's length, is the VPC's own.
    condition = alltrue([
      for cidr in values(var.subnet_cidrs) :
      try(cidrhost("${split("/", cidr)[0]}/${split("/", var.vpc_cidr)[1]}", 0) == cidrhost(var.vpc_cidr, 0), false)
    ])
    error_message = "Every block of subnet_cidrs must lie inside vpc_cidr (${var.vpc_cidr}): when one changes, change the other."
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
  description = "OpenSSH public keys that may sign in as admin on every host, by person: { alice = \"ssh-ed25519 AAAA… alice@laptop\" }. A change reaches a host when it stops and starts, which the apply does."
  nullable    = false
  validation {
    condition     = length(var.admin_ssh_keys) > 0
    error_message = "admin_ssh_keys needs at least one person's public key, e.g. { alice = \"ssh-ed25519 AAAA… alice@laptop\" }; without one nobody can sign in."
  }
  # Whether each is a public key is checked in bastion.tf: a refusal here prints the line of the
  # variables file that holds the value, and what was pasted may be a private key.
}

variable "images" {
  type        = object({ bastion = string, backend = string, database = string })
  description = "AMI id per role, e.g. { bastion = \"ami-0123456789abcdef0\", … }. Kept in images.auto.tfvars.json; the README says how to publish images."
  nullable    = false
  validation {
    condition     = alltrue([for id in values(var.images) : can(regex("^ami-[0-9a-f]{8,17}$", id))])
    error_message = "images needs an AMI id (ami- and 8 to 17 hex digits) for bastion, backend and database: publish them as the README says and write them to images.auto.tfvars.json."
  }
}

variable "instance_types" {
  type        = object({ bastion = string, backend = string, database = string })
  description = "EC2 instance type per role, e.g. \"t3.micro\". The processor must be the images': t3 for x86_64, t4g for arm64."
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
  description = "Size in GiB of the database's own volume, 1 to 16384, e.g. 10. It can grow later and never shrink."
  default     = 10
  nullable    = false
  validation {
    condition     = var.database_volume_gib >= 1 && var.database_volume_gib <= 16384 && floor(var.database_volume_gib) == var.database_volume_gib
    error_message = "database_volume_gib must be a whole number of GiB from 1 to 16384."
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
  description = "Hours after which AWS itself deletes the NAT gateway should nobody close the window, 1 to 168, e.g. 4; 0 = never. A change counts from the apply that brings it."
  default     = 4
  nullable    = false
  validation {
    condition     = var.nat_gateway_max_hours >= 0 && var.nat_gateway_max_hours <= 168 && floor(var.nat_gateway_max_hours) == var.nat_gateway_max_hours
    error_message = "nat_gateway_max_hours must be a whole number of hours from 1 to 168, or 0 for no deadline."
  }
}
